//! `trainer export`: a run's checkpoint as a folder that transformers or PEFT loads.

use std::path::PathBuf;

use vlft_crds::output::AdapterOutput;

use super::logging;
use crate::checkpoint::{Export, newest_complete};
use crate::error::{Error, Result};
use crate::models::{self, Method};
use crate::plan::export_options;
use crate::run_folder::RunRecord;
use crate::train::{load_weights, trained};

/// Exports a run's checkpoint as a folder that transformers or PEFT loads.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// The run's folder, which holds run.json and checkpoints
    run: PathBuf,
    /// Where the model goes; replaced if it exists
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model the run started from, if it is no longer where it was
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// The adapter alone instead of the merged model (LoRA)
    #[arg(long)]
    adapter: bool,
}

pub(super) fn run(args: ExportArgs) -> Result<()> {
    logging::init();
    let ExportArgs {
        run,
        out,
        base,
        adapter,
    } = args;
    let mut record = RunRecord::read(&run)?;
    if let Some(base) = base {
        record.model_folder = base;
    }
    if !record.model_folder.join("config.json").is_file() {
        return Err(Error::User(format!(
            "the run started from {}, where no model is; give its folder with --base",
            record.model_folder.display()
        )));
    }
    let options = export_options(&record.spec)?;
    if adapter && !matches!(options.model.method, Method::Lora(_)) {
        return Err(Error::User(
            "--adapter: the run trained full weights; leave it out".into(),
        ));
    }
    let mut warn = |warning: String| tracing::warn!("{warning}");
    let checkpoint = newest_complete(&run, &mut warn)?
        .ok_or_else(|| Error::User(format!("{}: no complete checkpoint yet", run.display())))?;
    let mut model = models::load(&record.model_folder, &options.model)?;
    load_weights(&checkpoint.folder, model.parameters_mut().buffers_mut())?;
    let trained = trained(model.parameters())?;
    let export = Export {
        source: &record.model_folder,
        base_name: record.base_name(),
        method: &options.model.method,
        trained: &trained,
        max_shard_bytes: options.max_shard_bytes,
    };
    let kind = match adapter {
        true => AdapterOutput::Adapter,
        false => AdapterOutput::Merged,
    };
    let written = export.write(&out, &out, kind, &|| Ok(()))?;
    println!(
        "{}: step {} of {}",
        written.display(),
        checkpoint.manifest.step,
        run.display()
    );
    Ok(())
}
