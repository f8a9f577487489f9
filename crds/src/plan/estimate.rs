//! What a step would take on so many GPUs: arithmetic from the model's shape, a stated compute
//! rate and a stated bandwidth. A prediction: docs/memory.md lists what it leaves out.

mod flops;

use crate::finetune::VLFineTuneSpec;
use crate::parallelism::Strategy;
use crate::plan::batch::{GPU_MICRO_BATCH, batch_plan};
use crate::plan::memory::groups::{Group, groups};
use crate::plan::memory::states::Sharding;
use crate::plan::memory::{MemoryParts, Workload, estimate, kinds, narrow};
use crate::plan::model_shape::{ModelShape, UnitKind};
use crate::plan::preflight::largest_micro_batch;

pub use flops::step_flops;

/// What a prediction assumes of the machines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hardware {
    /// Memory of one GPU, bytes.
    pub gpu_memory: i64,
    /// What one GPU achieves on the model's matrices, floating-point operations per second.
    pub flops_per_second: f64,
    /// What the slowest link of a ring over all GPUs carries in one direction, bytes per second.
    pub bytes_per_second: f64,
}

/// Bytes of the tensors that one optimizer step's collectives are called on, as one rank sees
/// them: whole tensors, not what a rank sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub all_reduce: i64,
    pub reduce_scatter: i64,
    pub all_gather: i64,
}

impl Traffic {
    /// What each rank sends in rings: an all-reduce is a reduce-scatter and an all-gather, and
    /// in each of them every rank sends all but one of its `ranks` parts.
    pub fn sent(&self, ranks: i64) -> i64 {
        let passes = 2 * i128::from(self.all_reduce)
            + i128::from(self.reduce_scatter)
            + i128::from(self.all_gather);
        let ranks = i128::from(ranks.max(1));
        narrow(passes * (ranks - 1) / ranks)
    }
}

/// One strategy on that hardware.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    pub strategy: Strategy,
    pub micro_batch_size: i64,
    pub accumulation_steps: i64,
    pub memory: MemoryParts,
    pub fits: bool,
    pub traffic: Traffic,
    pub compute_seconds: f64,
    pub communication_seconds: f64,
    /// Tokens of one optimizer step over all ranks.
    pub tokens: i64,
}

impl Prediction {
    /// A step if all communication hides behind compute, and if none does.
    pub fn step_seconds(&self) -> (f64, f64) {
        let (compute, communication) = (self.compute_seconds, self.communication_seconds);
        (compute.max(communication), compute + communication)
    }
}

/// Predicts a step of a spec that names its strategy, with the largest micro-batch that fits
/// where the spec leaves it open. The global batch must divide by the number of ranks.
pub fn predict(shape: &ModelShape, spec: &VLFineTuneSpec, hardware: Hardware) -> Prediction {
    let mut spec = spec.clone();
    if spec.training.micro_batch_size.is_none() {
        let size = largest_micro_batch(shape, &spec, hardware.gpu_memory);
        spec.training.micro_batch_size = Some(size);
    }
    let plan = batch_plan(&spec, GPU_MICRO_BATCH).ok();
    let micro_batch_size = spec.training.micro_batch_size.unwrap_or(1);
    let accumulation_steps = plan.map_or(1, |plan| plan.accumulation_steps);
    let ranks = spec.workers.world_size();
    let workload = Workload::largest(shape, &spec, micro_batch_size);
    let memory = estimate(shape, &spec, workload);
    let traffic = traffic(shape, &spec, accumulation_steps);
    let flops = step_flops(shape, &spec, workload) * accumulation_steps as f64;
    Prediction {
        strategy: spec.parallelism.strategy,
        micro_batch_size,
        accumulation_steps,
        memory,
        fits: memory.total() <= hardware.gpu_memory,
        traffic,
        compute_seconds: flops / hardware.flops_per_second,
        communication_seconds: traffic.sent(ranks) as f64 / hardware.bytes_per_second,
        tokens: workload
            .tokens
            .saturating_mul(accumulation_steps)
            .saturating_mul(ranks),
    }
}

/// What the ranks exchange in one optimizer step. Gradients travel in the kind they are kept in,
/// parameters in the kind that units compute in. From level 2 on each micro-batch's gradients are
/// reduced, below those of all at once; level 3 gathers a unit as often as each micro-batch uses it.
pub fn traffic(shape: &ModelShape, spec: &VLFineTuneSpec, accumulation_steps: i64) -> Traffic {
    if spec.workers.world_size() < 2 {
        return Traffic::default();
    }
    let (storage, compute) = kinds(spec);
    let multiple = Sharding::of(spec).multiple();
    let (mut trained, mut gathered) = (0, 0);
    let mut visited = false;
    for group in groups(shape, spec) {
        visited |= !group.spans().is_empty();
        let elements = group.count * group.buffer_elements(multiple);
        let frozen = group.count * group.frozen_bytes_padded(compute, multiple);
        trained += elements;
        gathered += uses(&group, visited, shape.tied) * (compute * elements + frozen);
    }
    let (gradients, weights) = (storage * trained, compute * trained);
    let micro_batches = i128::from(accumulation_steps);
    match spec.parallelism.strategy {
        Strategy::Auto | Strategy::Ddp => Traffic {
            all_reduce: narrow(gradients),
            ..Traffic::default()
        },
        Strategy::Zero1 => Traffic {
            reduce_scatter: narrow(gradients),
            all_gather: narrow(weights),
            ..Traffic::default()
        },
        Strategy::Zero2 => Traffic {
            reduce_scatter: narrow(micro_batches * gradients),
            all_gather: narrow(weights),
            ..Traffic::default()
        },
        Strategy::Zero3 => Traffic {
            reduce_scatter: narrow(micro_batches * gradients),
            all_gather: narrow(micro_batches * gathered),
            ..Traffic::default()
        },
    }
}

/// How often one micro-batch makes a unit whole: for forward, and for backward if that comes so
/// far down. The head's backward runs inside its forward; a tied head borrows the embedding.
fn uses(group: &Group, visited: bool, tied: bool) -> i128 {
    let backward = i128::from(visited);
    match group.unit.kind {
        UnitKind::Head => 1,
        UnitKind::Embedding => 1 + backward + i128::from(tied),
        _ => 1 + backward,
    }
}

#[cfg(test)]
mod tests;
