//! `trainer init`: a randomly initialised model and a tokenizer trained on the data.

use crate::error::Result;

/// Makes a randomly initialised model with a tokenizer trained on the dataset
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {}

pub(super) fn run(args: InitArgs) -> Result<()> {
    let InitArgs {} = args;
    Err(super::not_available("init"))
}
