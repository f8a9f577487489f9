//! `trainer forward`: inputs, logits, loss and gradients, to compare with a reference.

use crate::error::Result;

/// Writes inputs, logits, loss and gradients of a dataset to a safetensors file
#[derive(Debug, clap::Args)]
pub(super) struct ForwardArgs {}

pub(super) fn run(args: ForwardArgs) -> Result<()> {
    let ForwardArgs {} = args;
    Err(super::not_available("forward"))
}
