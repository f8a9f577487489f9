//! `trainer generate`: text from an image and a prompt.

use crate::error::Result;

/// Generates text from an image and a prompt
#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {}

pub(super) fn run(args: GenerateArgs) -> Result<()> {
    let GenerateArgs {} = args;
    Err(super::not_available("generate"))
}
