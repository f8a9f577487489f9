//! `trainer convert`: a train_config.yaml as a VLFineTune.

use crate::error::Result;

/// Prints the VLFineTune that a train_config.yaml stands for
#[derive(Debug, clap::Args)]
pub(super) struct ConvertArgs {}

pub(super) fn run(args: ConvertArgs) -> Result<()> {
    let ConvertArgs {} = args;
    Err(super::not_available("convert"))
}
