//! `trainer validate`: checks document and data before anything is booked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use vlft_crds::VLFineTuneSpec;
use vlft_crds::load::load_file;

use super::logging;
use crate::data::inspection::{Inspected, Report};
use crate::data::{Dataset, Encoder, Fault, FaultKind};
use crate::error::{Error, Result};
use crate::models;
use crate::plan::{Place, RunPlan, Volumes};

/// Checks a VLFineTune and all its data
///
/// Decodes every image and tokenises every record as training would, on the CPU. Fails with the
/// exit code of a data error if a record would end the run.
#[derive(Debug, clap::Args)]
pub(super) struct ValidateArgs {
    /// A file with one VLFineTune
    file: PathBuf,
    /// The folder that stands in for a pvc://NAME; may be given several times
    #[arg(long = "volume", value_name = "NAME=FOLDER")]
    volumes: Vec<String>,
    /// Writes the whole report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: ValidateArgs) -> Result<()> {
    logging::init();
    let ValidateArgs {
        file,
        volumes,
        json,
    } = args;
    let document =
        load_file(&file).map_err(|cause| Error::User(format!("{}: {cause}", file.display())))?;
    let plan = plan(document.spec, &Volumes::parse(&volumes)?)?;
    let report = inspect(&plan)?;
    if let Some(path) = json {
        write(&path, &report)?;
    }
    print!("{report}");
    verdict(&report)
}

/// Nothing is written, and no device is asked for.
fn plan(spec: VLFineTuneSpec, volumes: &Volumes) -> Result<RunPlan> {
    let place = Place {
        volumes,
        run_folder: Path::new(""),
        attempt: 1,
        local_rank: 0,
        model_folder: PathBuf::new(),
        adapter_folder: PathBuf::new(),
    };
    RunPlan::new(spec, place)
}

fn inspect(plan: &RunPlan) -> Result<Report> {
    let processor = models::open_processor(&plan.model_folder, plan.pixels)?;
    let encoder = Arc::new(Encoder::open(&plan.model_folder, processor, plan.limit)?);
    let train = inspect_all(&Dataset::open(&plan.train_data)?, &encoder)?;
    let validation = match &plan.validation_data {
        Some(options) => Some(inspect_all(&Dataset::open(options)?, &encoder)?),
        None => None,
    };
    let (limit, _) = encoder.limit();
    Ok(Report::new(limit, &train, validation.as_deref()))
}

/// On all cores, in file order.
fn inspect_all(dataset: &Dataset, encoder: &Encoder) -> Result<Vec<Inspected>> {
    (0..dataset.len())
        .into_par_iter()
        .map(|index| inspect_one(dataset, encoder, index))
        .collect()
}

/// Errors that are not the record's own end the inspection.
fn inspect_one(dataset: &Dataset, encoder: &Encoder, index: usize) -> Result<Inspected> {
    let place = dataset.place(index)?.to_string();
    let record = dataset.record(index).map_err(|error| Fault {
        kind: FaultKind::Record,
        error,
    });
    let outcome = match record.and_then(|record| encoder.inspect(&record)) {
        Ok(facts) => Ok(facts),
        Err(Fault {
            kind,
            error: error @ (Error::Data(_) | Error::User(_)),
        }) => Err((kind, error.to_string())),
        Err(Fault { error, .. }) => return Err(error),
    };
    Ok(Inspected { place, outcome })
}

fn write(path: &Path, report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(report)
        .map_err(|cause| Error::Bug(format!("report: {cause}")))?;
    std::fs::write(path, json + "\n").map_err(|cause| Error::storage("write", path, &cause))
}

fn verdict(report: &Report) -> Result<()> {
    if let (count, Some(first)) = report.faults() {
        return Err(Error::Data(format!(
            "{count} records would end the run; the first: {first}"
        )));
    }
    if report.train.usable == 0 {
        return Err(Error::Data(format!(
            "all {} records are longer than maxLength {}; raise it, or lower maxPixels",
            report.train.records, report.max_length
        )));
    }
    Ok(())
}
