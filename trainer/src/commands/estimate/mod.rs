//! `trainer estimate`: memory and step time of a run before anything is booked. Everything is
//! computed by the plan that the operator uses too; nothing runs.

mod report;

use std::path::{Path, PathBuf};

use vlft_crds::VLFineTuneSpec;
use vlft_crds::load::{load_file, load_str};
use vlft_crds::parallelism::Strategy;
use vlft_crds::plan::estimate::{Hardware, Prediction, predict};
use vlft_crds::plan::gpu;
use vlft_crds::plan::memory::trained_parameters;
use vlft_crds::plan::model_shape::{ModelShape, catalog_names, in_catalog, read_config};
use vlft_crds::plan::preflight::base_model;
use vlft_crds::plan::resolve;
use vlft_crds::quantity;
use vlft_crds::training::Precision;
use vlft_crds::uri::Uri;
use vlft_crds::workers::Device;

use crate::error::{Error, Result};

/// Predicts memory and step time of a run; nothing is started
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("subject").required(true).multiple(true).args(["file", "model", "config"]))]
pub(super) struct EstimateArgs {
    /// A VLFineTune; without one, the defaults of the resource with --method
    file: Option<PathBuf>,
    /// A published model by its name on the Hub, e.g. Qwen/Qwen2-VL-7B-Instruct
    #[arg(long)]
    model: Option<String>,
    /// A model's config.json, for models that are not in the catalog
    #[arg(long, value_name = "PATH", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// What trains, where no file says
    #[arg(long, value_enum, conflicts_with = "file")]
    method: Option<MethodName>,
    /// GPUs in all; absent means as many as the file asks for
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    gpus: Option<u16>,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    gpus_per_node: u16,
    /// Memory of one GPU, e.g. 80Gi; absent means the file's, or 80Gi
    #[arg(long)]
    gpu_memory: Option<String>,
    /// The slowest link between the GPUs; absent means nvlink within a node, else 400GbE
    #[arg(long, value_enum)]
    interconnect: Option<Interconnect>,
    /// What one GPU achieves, 10^12 operations per second: measure it, or accept 40 % of an H100
    #[arg(long, allow_negative_numbers = true)]
    tflops: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MethodName {
    Full,
    Lora,
    Qlora,
}

/// Nominal rates in one direction; a node's network card is shared by the rings of its GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Interconnect {
    #[value(name = "nvlink")]
    NvLink,
    #[value(name = "100GbE")]
    Ethernet100,
    #[value(name = "400GbE")]
    Ethernet400,
}

impl Interconnect {
    /// Bytes per second, by the vendors' data sheets (NVLink 4: 18 links of 25 GB/s).
    fn bytes_per_second(self) -> f64 {
        match self {
            Self::NvLink => 450e9,
            Self::Ethernet100 => 12.5e9,
            Self::Ethernet400 => 50e9,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NvLink => "nvlink",
            Self::Ethernet100 => "100GbE",
            Self::Ethernet400 => "400GbE",
        }
    }
}

/// Share of a link's nominal rate that collectives are taken to reach.
const LINK_EFFICIENCY: f64 = 0.8;
/// 40 % of an H100's dense peaks: 989 TFLOP/s in bfloat16, 67 in float32.
const BFLOAT16_TFLOPS: f64 = 400.0;
const FLOAT32_TFLOPS: f64 = 27.0;
const GPU_MEMORY: i64 = 80 << 30;

/// A question, resolved.
struct Question {
    name: String,
    shape: ModelShape,
    spec: VLFineTuneSpec,
    hardware: Hardware,
    interconnect: Interconnect,
    tflops: f64,
    trained: i64,
}

pub(super) fn run(args: EstimateArgs) -> Result<()> {
    let question = resolve_question(&args)?;
    let strategies = match question.spec.workers.world_size() {
        1 => &Strategy::ALL[1..2],
        _ => &Strategy::ALL[1..],
    };
    let predictions: Vec<Prediction> = strategies
        .iter()
        .map(|strategy| {
            let mut spec = question.spec.clone();
            spec.parallelism.strategy = *strategy;
            predict(&question.shape, &spec, question.hardware)
        })
        .collect();
    let text = match args.json {
        true => report::json(&question, &predictions),
        false => report::text(&question, &predictions),
    };
    println!("{text}");
    Ok(())
}

fn resolve_question(args: &EstimateArgs) -> Result<Question> {
    let mut spec = read_spec(args)?;
    let (name, shape) = shape(args, &spec)?;
    spread(&mut spec, args)?;
    let ranks = spec.workers.world_size();
    let within = ranks <= i64::from(args.gpus_per_node);
    let interconnect = args.interconnect.unwrap_or(match within {
        true => Interconnect::NvLink,
        false => Interconnect::Ethernet400,
    });
    let tflops = tflops(args, &spec)?;
    let hardware = Hardware {
        gpu_memory: gpu_memory(args, &spec)?,
        flops_per_second: tflops * 1e12,
        bytes_per_second: interconnect.bytes_per_second() * LINK_EFFICIENCY,
    };
    Ok(Question {
        trained: trained_parameters(&shape, &spec),
        name,
        shape,
        spec,
        hardware,
        interconnect,
        tflops,
    })
}

fn read_spec(args: &EstimateArgs) -> Result<VLFineTuneSpec> {
    if let Some(path) = &args.file {
        return match load_file(path) {
            Ok(finetune) => Ok(finetune.spec),
            Err(error) => Err(Error::User(format!("{}: {error}", path.display()))),
        };
    }
    let method = match args.method.unwrap_or(MethodName::Lora) {
        MethodName::Full => "full",
        MethodName::Lora => "lora",
        MethodName::Qlora => "qlora",
    };
    let text = format!(
        "apiVersion: vlft.dev/v1alpha1
kind: VLFineTune
metadata: {{ name: estimate }}
spec:
  model: {{ uri: file:///model }}
  dataset: {{ train: [{{ uri: file:///data }}] }}
  method: {{ {method}: {{}} }}
"
    );
    let loaded = load_str(&text).map_err(|error| Error::Bug(error.to_string()))?;
    Ok(loaded.spec)
}

/// From the command line, else from what the file says of its model.
fn shape(args: &EstimateArgs, spec: &VLFineTuneSpec) -> Result<(String, ModelShape)> {
    if let Some(path) = &args.config {
        return Ok((path.display().to_string(), from_config(path)?));
    }
    let folder = match Uri::parse(&spec.model.uri) {
        Ok(Uri::File { path }) => Some(Path::new(&path).join("config.json")),
        _ => None,
    };
    let local = folder.filter(|path| path.is_file());
    match args.model.clone().or_else(|| base_model(spec)) {
        Some(name) => {
            let entry = in_catalog(&name).ok_or_else(|| unknown(&name))?;
            Ok((entry.name, entry.shape))
        }
        None => match local {
            Some(path) => Ok((path.display().to_string(), from_config(&path)?)),
            None => Err(Error::User(
                "spec.model.baseModel: the file does not say which published model it trains; \
                 name it there, or give --model NAME or --config config.json"
                    .into(),
            )),
        },
    }
}

fn unknown(name: &str) -> Error {
    Error::User(format!(
        "the catalog does not have {name}; give its config.json with --config, or one of: {}",
        catalog_names().join(", ")
    ))
}

fn from_config(path: &Path) -> Result<ModelShape> {
    let at = |error: &dyn std::fmt::Display| Error::User(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| at(&error))?;
    let json = serde_json::from_str(&text).map_err(|error| at(&error))?;
    read_config(&json).map_err(|error| at(&error))
}

/// Puts the run on so many GPUs, whole nodes of them beyond one node.
fn spread(spec: &mut VLFineTuneSpec, args: &EstimateArgs) -> Result<()> {
    spec.workers.device = Device::Gpu;
    if let Some(gpus) = args.gpus.map(i64::from) {
        let node = i64::from(args.gpus_per_node).min(gpus);
        if gpus % node != 0 {
            return Err(Error::User(format!(
                "--gpus: {gpus} is not a multiple of --gpus-per-node {node}"
            )));
        }
        spec.workers.replicas = gpus / node;
        spec.workers.processes_per_replica = None;
        spec.workers.gpu.get_or_insert_default().count = node;
    }
    let ranks = spec.workers.world_size();
    let unit = ranks * spec.training.micro_batch_size.unwrap_or(1);
    let batch = &mut spec.training.global_batch_size;
    if *batch % unit != 0 {
        let raised = (*batch + unit - 1) / unit * unit;
        eprintln!("globalBatchSize is raised from {batch} to {raised}, a multiple of {unit}");
        *batch = raised;
    }
    Ok(())
}

fn gpu_memory(args: &EstimateArgs, spec: &VLFineTuneSpec) -> Result<i64> {
    let Some(text) = &args.gpu_memory else {
        return Ok(gpu::given(spec).map_or(GPU_MEMORY, |gpu| gpu.smallest));
    };
    let bytes = quantity::parse(text).filter(|bytes| *bytes >= 1.0);
    bytes.map(|bytes| bytes as i64).ok_or_else(|| {
        Error::User(format!(
            "--gpu-memory: `{text}` is no amount of memory; write for example 80Gi"
        ))
    })
}

fn tflops(args: &EstimateArgs, spec: &VLFineTuneSpec) -> Result<f64> {
    let assumed = match resolve::precision(spec) {
        Precision::Float32 => FLOAT32_TFLOPS,
        _ => BFLOAT16_TFLOPS,
    };
    match args.tflops {
        Some(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Some(rate) => Err(Error::User(format!(
            "--tflops: {rate} is not a positive number"
        ))),
        None => Ok(assumed),
    }
}

#[cfg(test)]
mod tests;
