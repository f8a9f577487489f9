//! `trainer estimate`: memory of a run before it is booked.

use crate::error::Result;

/// Estimates the memory of a run
#[derive(Debug, clap::Args)]
pub(super) struct EstimateArgs {}

pub(super) fn run(args: EstimateArgs) -> Result<()> {
    let EstimateArgs {} = args;
    Err(super::not_available("estimate"))
}
