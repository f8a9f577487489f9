//! Spec and environment -> [`RunPlan`]: everything a run needs, resolved. What the spec leaves
//! open is chosen here and nowhere else.

mod hub_cache;
mod identity;
mod locations;
mod train_config;

use std::path::{Path, PathBuf};

use tch::Device;
use vlft_crds::VLFineTuneSpec;
use vlft_crds::method::Lora;
use vlft_crds::output::AdapterOutput;
use vlft_crds::parallelism::{Offload as SpecOffload, Strategy};
use vlft_crds::plan::batch::{BatchPlan, GPU_MICRO_BATCH, batch_plan};
use vlft_crds::plan::resolve;
use vlft_crds::training::{Precision as SpecPrecision, Training};
use vlft_crds::unsupported::unsupported_parts;
use vlft_crds::workers::Device as SpecDevice;

pub use identity::{PodEnvironment, local_identity};
pub use locations::Volumes;
pub use train_config::{ConfigFlags, Converted, TrainConfig};

use crate::checkpoint::Retention;
use crate::data::formats::Wording;
use crate::data::{DatasetOptions, LengthLimit, SourceOptions};
use crate::engine::{EngineOptions, Offload, Precision, Recompute, Stage};
use crate::error::{Error, Result};
use crate::models::image_config::PixelLimits;
use crate::models::{LoraOptions, LoraTargets, Method, ModelOptions, Towers};
use crate::optim::{AdamWSettings, LearningRates, Schedule};

/// Share of all steps that warm up where the spec says nothing.
const WARMUP_RATIO: f64 = 0.03;

/// A run, resolved.
#[derive(Debug, Clone)]
pub struct RunPlan {
    pub spec: VLFineTuneSpec,
    pub attempt: i64,
    pub model_folder: PathBuf,
    pub model: ModelOptions,
    pub train_data: DatasetOptions,
    pub validation_data: Option<DatasetOptions>,
    pub limit: LengthLimit,
    pub pixels: PixelLimits,
    pub batch: BatchPlan,
    /// What ranks hold of the model as slices only.
    pub stage: Stage,
    pub offload: Offload,
    pub optimizer: AdamWSettings,
    /// Peak rates.
    pub rates: LearningRates,
    pub seed: u64,
    pub max_grad_norm: f64,
    pub max_non_finite_steps: u64,
    pub log_every_steps: u64,
    pub checkpoint_every: u64,
    pub evaluate_every: Option<u64>,
    pub retention: Retention,
    /// Holds checkpoints and fence.
    pub run_folder: PathBuf,
    pub export: ExportPlan,
}

/// What the run leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportPlan {
    /// Full weights, adapters merged.
    pub model_folder: PathBuf,
    /// Adapters alone.
    pub adapter_folder: PathBuf,
    pub adapter: AdapterOutput,
    /// Largest weight file, bytes.
    pub max_shard_bytes: u64,
}

/// Where a run happens.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    pub volumes: &'a Volumes,
    pub run_folder: &'a Path,
    pub attempt: i64,
    /// The GPU of this process.
    pub local_rank: usize,
    /// Where the finished model goes.
    pub model_folder: PathBuf,
    pub adapter_folder: PathBuf,
}

impl RunPlan {
    /// Resolves a checked spec. User errors name the field.
    pub fn new(spec: VLFineTuneSpec, place: Place) -> Result<Self> {
        let spec = place.volumes.with_cached_models(spec);
        // First: what is wrong with hf:// here is that the cache does not have it.
        let model_folder = place.volumes.folder("spec.model.uri", &spec.model.uri)?;
        refuse_unsupported(&spec)?;
        let device = device(spec.workers.device, place.local_rank);
        let training = &spec.training;
        let batch = batch_plan(&spec, GPU_MICRO_BATCH).map_err(|e| Error::User(e.to_string()))?;
        Ok(Self {
            attempt: place.attempt,
            model_folder,
            model: model_options(&spec, device)?,
            train_data: data_options(&spec, &place, "train")?,
            validation_data: match spec.dataset.validation.is_empty() {
                true => None,
                false => Some(data_options(&spec, &place, "validation")?),
            },
            limit: LengthLimit {
                max_length: spec.dataset.max_length as usize,
                truncation: spec.dataset.truncation,
            },
            pixels: PixelLimits {
                min_pixels: spec.dataset.min_pixels.map(|pixels| pixels as u64),
                max_pixels: spec.dataset.max_pixels.map(|pixels| pixels as u64),
            },
            batch,
            stage: stage(spec.parallelism.strategy),
            offload: offload(spec.parallelism.offload),
            optimizer: optimizer(training),
            rates: rates(&spec),
            seed: training.seed as u64,
            max_grad_norm: training.max_grad_norm,
            max_non_finite_steps: training.max_non_finite_steps as u64,
            log_every_steps: training.log_every_steps as u64,
            checkpoint_every: spec.checkpoint.every_steps.max(1) as u64,
            evaluate_every: spec.evaluation.every_steps.map(|every| every.max(1) as u64),
            retention: Retention {
                keep_last: spec.checkpoint.keep_last as usize,
                keep_best: false,
                keep_every: None,
            },
            run_folder: place.run_folder.to_owned(),
            export: export_plan(&spec, &place)?,
            spec,
        })
    }

    /// Optimizer steps of the run with this many training samples.
    pub fn total_steps(&self, samples: usize) -> u64 {
        let training = &self.spec.training;
        if let Some(steps) = training.max_steps {
            return steps.max(1) as u64;
        }
        let steps = training.epochs * samples as f64 / self.batch.global_batch_size() as f64;
        (steps.ceil() as u64).max(1)
    }

    /// The learning-rate schedule of a run of this many steps.
    pub fn schedule(&self, total_steps: u64) -> Schedule {
        let training = &self.spec.training;
        let ratio = training.warmup_ratio.unwrap_or(WARMUP_RATIO);
        let share = (ratio * total_steps as f64).ceil() as u64;
        Schedule {
            shape: training.lr_scheduler,
            warmup_steps: training.warmup_steps.map_or(share, |steps| steps as u64),
            total_steps,
        }
    }
}

fn refuse_unsupported(spec: &VLFineTuneSpec) -> Result<()> {
    let found = unsupported_parts(spec);
    if found.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    Err(Error::User(lines.join("\n")))
}

fn stage(strategy: Strategy) -> Stage {
    match strategy {
        Strategy::Auto | Strategy::Ddp => Stage::Whole,
        Strategy::Zero1 => Stage::Optimizer,
        Strategy::Zero2 => Stage::Gradients,
        Strategy::Zero3 => Stage::Parameters,
    }
}

fn offload(offload: SpecOffload) -> Offload {
    match offload {
        SpecOffload::None => Offload::None,
        SpecOffload::Optimizer => Offload::Optimizer,
        SpecOffload::Parameters => Offload::Parameters,
    }
}

fn device(asked: SpecDevice, local_rank: usize) -> Device {
    match asked {
        SpecDevice::Cpu => Device::Cpu,
        SpecDevice::Gpu => Device::Cuda(local_rank),
    }
}

fn precision(spec: &VLFineTuneSpec) -> Result<Precision> {
    match resolve::precision(spec) {
        SpecPrecision::Float32 => Ok(Precision::Float32),
        SpecPrecision::BFloat16Mixed => Ok(Precision::BFloat16Mixed),
        SpecPrecision::BFloat16 => Ok(Precision::BFloat16),
        SpecPrecision::Float16Mixed => Err(Error::User(
            "spec.precision: Float16Mixed is not supported yet; use BFloat16Mixed".into(),
        )),
    }
}

fn model_options(spec: &VLFineTuneSpec, device: Device) -> Result<ModelOptions> {
    let training = &spec.training;
    let recompute = resolve::gradient_checkpointing(spec);
    let method = match (&spec.method.full, &spec.method.lora) {
        (Some(_), _) => Method::Full,
        (None, Some(lora)) => Method::Lora(lora_options(lora)?),
        (None, None) => return Err(Error::User("spec.method: use full or lora".into())),
    };
    let trained = resolve::towers(spec);
    let towers = Towers {
        vision: trained.vision,
        projector: trained.projector,
        language: trained.language,
    };
    let engine = EngineOptions {
        precision: precision(spec)?,
        device,
        recompute: Recompute {
            vision: recompute,
            language: recompute,
        },
        loss_chunk: training.loss_chunk,
        seed: training.seed as u64,
    };
    Ok(ModelOptions {
        engine,
        method,
        towers,
    })
}

fn lora_options(lora: &Lora) -> Result<LoraOptions> {
    let targets = LoraTargets::parse(&lora.target_modules)?;
    // rsLoRA scales by alpha / sqrt(rank) where LoRA scales by alpha / rank.
    let rank = lora.rank as f64;
    let alpha = if lora.use_rslora {
        lora.alpha * rank.sqrt()
    } else {
        lora.alpha
    };
    Ok(LoraOptions {
        rank: lora.rank,
        alpha,
        dropout: lora.dropout,
        targets,
    })
}

fn data_options(spec: &VLFineTuneSpec, place: &Place, part: &str) -> Result<DatasetOptions> {
    let dataset = &spec.dataset;
    let list = match part {
        "validation" => &dataset.validation,
        _ => &dataset.train,
    };
    let mut sources = Vec::new();
    for (i, source) in list.iter().enumerate() {
        let field = |name: &str| format!("spec.dataset.{part}[{i}].{name}");
        let path = place.volumes.data(&field("uri"), &source.uri)?;
        let image_root = source.image_root.as_ref();
        let image_root = image_root.map(|root| place.volumes.data(&field("imageRoot"), root));
        sources.push(SourceOptions {
            path,
            image_root: image_root.transpose()?,
        });
    }
    Ok(DatasetOptions {
        sources,
        format: dataset.format,
        wording: Wording {
            prompt: dataset.prompt.clone(),
            system: dataset.system_prompt.clone(),
        },
    })
}

fn optimizer(training: &Training) -> AdamWSettings {
    AdamWSettings {
        beta1: training.adam_beta1,
        beta2: training.adam_beta2,
        eps: training.adam_epsilon,
        weight_decay: training.weight_decay,
    }
}

fn rates(spec: &VLFineTuneSpec) -> LearningRates {
    let base = spec.training.learning_rate;
    let Some(towers) = &spec.method.towers else {
        return LearningRates::uniform(base);
    };
    LearningRates {
        vision: towers.vision.learning_rate.unwrap_or(base),
        projector: towers.projector.learning_rate.unwrap_or(base),
        language: towers.language.learning_rate.unwrap_or(base),
    }
}

/// What exporting needs of a spec: the model as it was trained, on the CPU.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    pub model: ModelOptions,
    /// Largest weight file, bytes.
    pub max_shard_bytes: u64,
}

/// Resolves the parts of a run's spec that exporting needs.
pub fn export_options(spec: &VLFineTuneSpec) -> Result<ExportOptions> {
    Ok(ExportOptions {
        model: model_options(spec, Device::Cpu)?,
        max_shard_bytes: max_shard_bytes(spec)?,
    })
}

fn export_plan(spec: &VLFineTuneSpec, place: &Place) -> Result<ExportPlan> {
    Ok(ExportPlan {
        model_folder: place.model_folder.clone(),
        adapter_folder: place.adapter_folder.clone(),
        adapter: spec.output.adapter,
        max_shard_bytes: max_shard_bytes(spec)?,
    })
}

fn max_shard_bytes(spec: &VLFineTuneSpec) -> Result<u64> {
    let size = &spec.output.max_shard_size.0;
    bytes_of_quantity(size).ok_or_else(|| {
        Error::User(format!(
            "spec.output.maxShardSize: `{size}` is no quantity of bytes; write for example 5Gi"
        ))
    })
}

/// A Kubernetes quantity without fraction or exponent, in bytes.
fn bytes_of_quantity(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit: u64 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(unit)
        .filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests;
