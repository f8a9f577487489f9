//! `trainer validate`: checks document and data before anything is booked.

use crate::error::Result;

/// Checks a VLFineTune and all its data
#[derive(Debug, clap::Args)]
pub(super) struct ValidateArgs {}

pub(super) fn run(args: ValidateArgs) -> Result<()> {
    let ValidateArgs {} = args;
    Err(super::not_available("validate"))
}
