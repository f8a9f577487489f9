//! `trainer run`: trains from a file, without a cluster.

use std::path::{Path, PathBuf};

use vlft_crds::VLFineTune;
use vlft_crds::contract::{ADAPTER_FOLDER, MODEL_FOLDER};
use vlft_crds::load::load_file;
use vlft_crds::workers::Device;

use super::logging;
use super::training::{Job, Outcome};
use crate::error::{Error, Result};
use crate::metrics::Published;
use crate::parallel::Rank;
use crate::plan::{ConfigFlags, TrainConfig, Volumes, local_identity};
use crate::train::Console;

/// Trains from a VLFineTune file or a train_config.yaml, without a cluster.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// A file with one VLFineTune
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// A train_config.yaml instead
    #[arg(long)]
    config: Option<PathBuf>,
    /// The folder that stands in for a pvc://NAME; may be given several times
    #[arg(long = "volume", value_name = "NAME=FOLDER")]
    volumes: Vec<String>,
    /// Where checkpoints and the finished model go [default: out/NAME]
    #[arg(long = "output_dir", alias = "output-dir", value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Compute in float16 (with --config)
    #[arg(long, conflicts_with_all = ["bf16", "file"])]
    fp16: bool,
    /// Compute in bfloat16 over float32 master weights (with --config)
    #[arg(long, conflicts_with = "file")]
    bf16: bool,
    /// Overrides spec.workers.device
    #[arg(long, value_enum, ignore_case = true)]
    device: Option<DeviceArg>,
    /// Serves /metrics, /progress and /healthz on this port
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DeviceArg {
    Cpu,
    Gpu,
}

pub(super) fn run(args: RunArgs) -> Result<()> {
    logging::init();
    let console = Console::detect();
    let mut document = document(&args, console)?;
    if let Some(device) = args.device {
        document.spec.workers.device = match device {
            DeviceArg::Cpu => Device::Cpu,
            DeviceArg::Gpu => Device::Gpu,
        };
    }
    let identity = local_identity(&document);
    let output = args
        .output_dir
        .unwrap_or_else(|| Path::new("out").join(&identity.name));
    std::fs::create_dir_all(&output).map_err(|cause| Error::storage("create", &output, &cause))?;
    // With a flat configuration the model goes where other trainers put it: into output_dir.
    let model_folder = match args.config {
        Some(_) => output.clone(),
        None => output.join(MODEL_FOLDER),
    };
    let job = Job {
        document,
        rank: Rank::ONLY,
        rendezvous: None,
        identity,
        volumes: Volumes::parse(&args.volumes)?,
        run_folder: output.clone(),
        model_folder,
        adapter_folder: output.join(ADAPTER_FOLDER),
        volume: output,
        console,
        metrics_port: args.metrics_port,
    };
    let Outcome { summary, model } = job.work(&Published::default())?;
    let loss = |loss: Option<f64>| loss.map_or("unknown".to_owned(), |loss| format!("{loss:.4}"));
    console.message(&format!(
        "done: {} steps, loss {}, validation loss {}, model in {}",
        summary.step,
        loss(summary.final_loss),
        loss(summary.validation_loss),
        model.display()
    ));
    Ok(())
}

fn document(args: &RunArgs, console: Console) -> Result<VLFineTune> {
    if let Some(file) = &args.file {
        return load_file(file)
            .map_err(|cause| Error::User(format!("{}: {cause}", file.display())));
    }
    let config = args.config.as_deref().unwrap_or_else(|| Path::new(""));
    let flags = ConfigFlags {
        fp16: args.fp16,
        bf16: args.bf16,
        cpu: args.device == Some(DeviceArg::Cpu),
    };
    let converted = TrainConfig::open(config, flags)?;
    for notice in &converted.notices {
        console.message(notice);
    }
    converted.checked()
}
