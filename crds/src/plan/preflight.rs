//! Whether a run fits its GPUs, before one is booked; and what the spec leaves to memory: the
//! micro-batch, and under `strategy: Auto` how much is sharded.

mod advice;

use advice::advice;

use crate::finetune::VLFineTuneSpec;
use crate::parallelism::Strategy;
use crate::plan::batch::{GPU_MICRO_BATCH, batch_plan};
use crate::plan::gpu::GpuMemory;
use crate::plan::memory::{MemoryParts, Workload, estimate, lower_bound};
use crate::plan::model_shape::{CatalogEntry, ModelShape, in_catalog};
use crate::status::MemoryEstimate;
use crate::unsupported::unsupported_parts;
use crate::uri::Uri;
use crate::workers::Device;

/// What is known of a run's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Model or GPU is unknown: nothing can be said.
    Unknown,
    Fits,
    /// The estimate exceeds the smallest GPU it may land on; it may run.
    AtRisk,
    /// Weights, gradients and optimizer states alone exceed every GPU it may land on.
    Exceeds,
}

/// The result for one spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Preflight {
    /// With micro-batch and strategy filled in where memory decides them.
    pub spec: VLFineTuneSpec,
    pub memory: MemoryCheck,
}

/// What is known of a run's memory, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryCheck {
    pub outcome: Outcome,
    /// CamelCase, for a condition.
    pub reason: &'static str,
    pub message: String,
    pub parts: Option<MemoryParts>,
    pub gpu: Option<GpuMemory>,
}

pub const MODEL_UNKNOWN: &str = "ModelUnknown";
pub const GPU_UNKNOWN: &str = "GPUUnknown";
pub const FITS: &str = "Fits";
pub const ESTIMATE_EXCEEDS_GPU: &str = "EstimateExceedsGPU";
pub const MEMORY_EXCEEDS_GPU: &str = "MemoryExceedsGPU";

impl MemoryCheck {
    /// As status shows it.
    pub fn estimate(&self) -> Option<MemoryEstimate> {
        let gpu = self.gpu.map(|gpu| gpu.smallest);
        self.parts.map(|parts| parts.for_status(gpu))
    }
}

/// The published model that a spec speaks of: `model.baseModel`, else the name in an `hf://` uri.
pub fn base_model(spec: &VLFineTuneSpec) -> Option<String> {
    let named = spec.model.base_model.clone();
    named.or_else(|| match Uri::parse(&spec.model.uri) {
        Ok(Uri::Hub { repo }) => Some(repo),
        _ => None,
    })
}

/// Checks a spec against the GPUs it may land on, and fills in what memory decides. The spec
/// must be one that [`batch_plan`] accepts.
pub fn preflight(spec: &VLFineTuneSpec, gpu: Option<GpuMemory>) -> Preflight {
    let name = base_model(spec);
    match name.as_deref().and_then(in_catalog) {
        Some(model) => with_model(spec, &model, gpu),
        None => unknown_model(spec, name, gpu),
    }
}

fn unknown_model(spec: &VLFineTuneSpec, name: Option<String>, gpu: Option<GpuMemory>) -> Preflight {
    let message = match name {
        Some(name) => format!("no estimate: the catalog does not have {name}"),
        None => "no estimate: which model it is is not known; name the published model that it \
                 comes from in spec.model.baseModel, for example Qwen/Qwen2-VL-7B-Instruct"
            .to_owned(),
    };
    let memory = MemoryCheck {
        outcome: Outcome::Unknown,
        reason: MODEL_UNKNOWN,
        message,
        parts: None,
        gpu,
    };
    Preflight {
        spec: spec.clone(),
        memory,
    }
}

fn with_model(spec: &VLFineTuneSpec, model: &CatalogEntry, gpu: Option<GpuMemory>) -> Preflight {
    let shape = &model.shape;
    let resolved = match gpu {
        Some(gpu) => choose(spec, shape, gpu.smallest),
        None => spec.clone(),
    };
    let parts = at_micro_batch(shape, &resolved, micro_batch_size(&resolved));
    let (outcome, reason, message) = match gpu {
        Some(gpu) => judge(&resolved, model, parts, gpu),
        None => without_gpu(&resolved),
    };
    let memory = MemoryCheck {
        outcome,
        reason,
        message,
        parts: Some(parts),
        gpu,
    };
    Preflight {
        spec: resolved,
        memory,
    }
}

fn without_gpu(spec: &VLFineTuneSpec) -> (Outcome, &'static str, String) {
    let message = match spec.workers.device {
        Device::Cpu => "the run is on CPUs: no GPU to compare with",
        Device::Gpu => {
            "the memory of the GPUs is not known: no node that fits has the label \
             nvidia.com/gpu.memory (GPU feature discovery sets it); give spec.workers.gpu.memory"
        }
    };
    (Outcome::Unknown, GPU_UNKNOWN, message.to_owned())
}

fn judge(
    spec: &VLFineTuneSpec,
    model: &CatalogEntry,
    parts: MemoryParts,
    gpu: GpuMemory,
) -> (Outcome, &'static str, String) {
    let states = lower_bound(&model.shape, spec);
    let (total, GpuMemory { smallest, largest }) = (parts.total(), gpu);
    if states > largest {
        let message = format!(
            "{}: weights, gradients and optimizer states alone take {} of each GPU, which has {}; {}",
            model.name,
            gibibytes(states),
            gibibytes(largest),
            advice(spec, &model.shape, largest)
        );
        return (Outcome::Exceeds, MEMORY_EXCEEDS_GPU, message);
    }
    let size = micro_batch_size(spec);
    let found = format!(
        "{}: an estimated {} of {} with {size} samples per forward pass",
        model.name,
        gibibytes(total),
        gibibytes(smallest),
    );
    if total > smallest {
        let message = format!("{found}; {}", advice(spec, &model.shape, smallest));
        return (Outcome::AtRisk, ESTIMATE_EXCEEDS_GPU, message);
    }
    (Outcome::Fits, FITS, found)
}

/// Fills in micro-batch and strategy: the least sharded that fits, then the largest micro-batch.
fn choose(spec: &VLFineTuneSpec, shape: &ModelShape, gpu: i64) -> VLFineTuneSpec {
    let mut chosen = spec.clone();
    if spec.parallelism.strategy == Strategy::Auto && spec.workers.world_size() > 1 {
        let fitting = [
            Strategy::Ddp,
            Strategy::Zero1,
            Strategy::Zero2,
            Strategy::Zero3,
        ];
        let fitting = fitting.into_iter().find(|strategy| {
            let mut with = spec.clone();
            with.parallelism.strategy = *strategy;
            is_supported(&with) && smallest_total(shape, &with) <= gpu
        });
        chosen.parallelism.strategy = fitting.unwrap_or(Strategy::Ddp);
    }
    if chosen.training.micro_batch_size.is_none() {
        chosen.training.micro_batch_size = Some(largest_micro_batch(shape, &chosen, gpu));
    }
    chosen
}

/// The largest micro-batch whose estimate fits; 1 if none does.
pub fn largest_micro_batch(shape: &ModelShape, spec: &VLFineTuneSpec, gpu: i64) -> i64 {
    let share = spec.training.global_batch_size / spec.workers.world_size().max(1);
    let divisors = (1..=share).filter(|size| share % size == 0);
    divisors
        .take_while(|size| at_micro_batch(shape, spec, *size).total() <= gpu)
        .last()
        .unwrap_or(1)
}

fn at_micro_batch(shape: &ModelShape, spec: &VLFineTuneSpec, size: i64) -> MemoryParts {
    estimate(shape, spec, Workload::largest(shape, spec, size))
}

fn micro_batch_size(spec: &VLFineTuneSpec) -> i64 {
    batch_plan(spec, GPU_MICRO_BATCH).map_or(1, |plan| plan.micro_batch_size)
}

/// The total with the micro-batch that the spec gives, or else with the smallest.
fn smallest_total(shape: &ModelShape, spec: &VLFineTuneSpec) -> i64 {
    let size = spec.training.micro_batch_size.unwrap_or(1);
    at_micro_batch(shape, spec, size).total()
}

fn is_supported(spec: &VLFineTuneSpec) -> bool {
    unsupported_parts(spec).is_empty()
}

/// Bytes for people.
pub fn gibibytes(bytes: i64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests;
