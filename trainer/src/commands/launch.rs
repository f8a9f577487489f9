//! `trainer launch`: what a pod runs.

use crate::error::Result;

/// Runs the document of a VLFineTune inside a pod
#[derive(Debug, clap::Args)]
pub(super) struct LaunchArgs {}

pub(super) fn run(args: LaunchArgs) -> Result<()> {
    let LaunchArgs {} = args;
    Err(super::not_available("launch"))
}
