//! `trainer export`: a checkpoint as a folder that transformers or PEFT loads.

use crate::error::Result;

/// Exports a run's checkpoint as a folder that transformers or PEFT loads
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {}

pub(super) fn run(args: ExportArgs) -> Result<()> {
    let ExportArgs {} = args;
    Err(super::not_available("export"))
}
