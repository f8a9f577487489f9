//! `trainer run`: trains from a file, without a cluster.

use crate::error::Result;

/// Trains from a VLFineTune file or a train_config.yaml, without a cluster
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {}

pub(super) fn run(args: RunArgs) -> Result<()> {
    let RunArgs {} = args;
    Err(super::not_available("run"))
}
