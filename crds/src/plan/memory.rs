//! Bytes of memory that one rank needs, part by part. Pure; what is counted follows what the
//! trainer allocates (`trainer/src/engine`, `trainer/src/optim`), and docs/memory.md says how
//! well. The states alone are exact; activations are those of the largest micro-batch.

mod activations;
mod graphs;
pub(in crate::plan) mod groups;
pub(in crate::plan) mod states;

use crate::finetune::VLFineTuneSpec;
use crate::plan::model_shape::ModelShape;
use crate::plan::resolve;
use crate::status::MemoryEstimate;
use crate::workers::Device;

/// CUDA context, kernels and cuBLAS workspace of one process, bytes. An assumption.
pub const CUDA_CONTEXT_BYTES: i64 = 700 << 20;
/// Buffers and channels of NCCL where there is more than one rank, bytes. An assumption.
pub const NCCL_BYTES: i64 = 800 << 20;
/// Share of what comes and goes that a caching allocator holds on top, per cent. An assumption.
pub const FRAGMENTATION_PERCENT: i64 = 5;
/// Logits of one chunk take at most this many bytes (float32) unless a chunk is asked for, as in
/// `trainer/src/engine/model.rs`.
const LOGIT_BYTES: i64 = 256 << 20;

/// What one forward pass on one rank is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of all samples, image tokens included.
    pub tokens: i64,
    /// Patches of all images.
    pub patches: i64,
    /// Positions that the loss is computed on.
    pub supervised: i64,
}

impl Workload {
    /// The largest micro-batch that the spec lets through: every sample as long as `maxLength`,
    /// with one image as large as `maxPixels`, and every text token supervised.
    pub fn largest(shape: &ModelShape, spec: &VLFineTuneSpec, micro_batch_size: i64) -> Self {
        let length = spec.dataset.max_length;
        let image = shape.image.tokens(spec.dataset.max_pixels).min(length);
        let samples = micro_batch_size;
        Self {
            tokens: samples.saturating_mul(length),
            patches: samples
                .saturating_mul(image)
                .saturating_mul(shape.image.patches_per_token),
            supervised: samples.saturating_mul((length - image).max(1)),
        }
    }
}

/// Bytes of one rank at its peak. Parts that are not there at that moment are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// Frozen weights, and trained ones in the kind that units compute in.
    pub weights: i64,
    /// float32 copies that the optimizer updates, where units compute in another kind.
    pub masters: i64,
    pub gradients: i64,
    /// Both moments of AdamW.
    pub optimizer: i64,
    /// Copies in the compute kind, gathered units, gradients of one weight: what comes and goes
    /// with each unit besides activations.
    pub working: i64,
    /// Of the language model.
    pub activations: i64,
    /// Pixels and activations of vision tower and projector.
    pub vision: i64,
    /// Chunked logits and what is computed from them.
    pub logits: i64,
    /// CUDA context, NCCL, fragmentation.
    pub overhead: i64,
    /// What offload keeps in host memory; not part of the total.
    pub host: i64,
}

impl MemoryParts {
    /// Bytes on the device.
    pub fn total(&self) -> i64 {
        let Self {
            overhead, host: _, ..
        } = self;
        [self.states(), self.transient(), *overhead]
            .into_iter()
            .fold(0, i64::saturating_add)
    }

    /// What is there from the first step to the last, whatever the micro-batch.
    pub fn states(&self) -> i64 {
        let parts = [self.weights, self.masters, self.gradients, self.optimizer];
        parts.into_iter().fold(0, i64::saturating_add)
    }

    /// As status shows it, beside the memory of a GPU.
    pub fn for_status(&self, gpu_bytes: Option<i64>) -> MemoryEstimate {
        let (total_bytes, states_bytes) = (self.total(), self.states());
        let Self {
            weights,
            masters,
            gradients,
            optimizer,
            working,
            activations,
            vision,
            logits,
            overhead,
            host,
        } = *self;
        MemoryEstimate {
            total_bytes,
            states_bytes,
            weights_bytes: weights,
            masters_bytes: masters,
            gradients_bytes: gradients,
            optimizer_bytes: optimizer,
            working_bytes: working,
            activations_bytes: activations,
            vision_bytes: vision,
            logits_bytes: logits,
            overhead_bytes: overhead,
            host_bytes: host,
            gpu_bytes,
        }
    }

    /// What comes and goes within a step.
    pub fn transient(&self) -> i64 {
        let parts = [self.working, self.activations, self.vision, self.logits];
        parts.into_iter().fold(0, i64::saturating_add)
    }
}

/// Bytes of one rank at the peak of a step with this workload.
pub fn estimate(shape: &ModelShape, spec: &VLFineTuneSpec, workload: Workload) -> MemoryParts {
    let groups = groups::groups(shape, spec);
    let states = states::states(&groups, spec);
    let peak = activations::peak(&groups, shape, spec, workload);
    let mut parts = MemoryParts {
        working: peak.working,
        activations: peak.activations,
        vision: peak.vision,
        logits: peak.logits,
        ..states
    };
    parts.overhead = overhead(spec, parts.transient());
    parts
}

/// Bytes of one rank that no micro-batch can do without: weights, gradients, optimizer states.
pub fn lower_bound(shape: &ModelShape, spec: &VLFineTuneSpec) -> i64 {
    states::states(&groups::groups(shape, spec), spec).states()
}

/// A trained parameter of one unit, as often as the unit occurs.
pub fn trained_parameters(shape: &ModelShape, spec: &VLFineTuneSpec) -> i64 {
    let groups = groups::groups(shape, spec);
    narrow(groups.iter().map(groups::Group::trained_numel).sum())
}

fn overhead(spec: &VLFineTuneSpec, transient: i64) -> i64 {
    if spec.workers.device == Device::Cpu {
        return 0;
    }
    let nccl = if spec.workers.world_size() > 1 {
        NCCL_BYTES
    } else {
        0
    };
    let lost = transient / 100 * FRAGMENTATION_PERCENT;
    lost.saturating_add(CUDA_CONTEXT_BYTES + nccl)
}

/// Rows whose logits exist at one time.
fn loss_chunk(shape: &ModelShape, spec: &VLFineTuneSpec) -> i64 {
    let chosen = LOGIT_BYTES / 4 / shape.vocabulary.max(1);
    spec.training.loss_chunk.unwrap_or(chosen).max(1)
}

/// Sizes of the kinds of a spec, wide enough to multiply with anything.
pub(in crate::plan) fn kinds(spec: &VLFineTuneSpec) -> (i128, i128) {
    let kinds = resolve::kind_bytes(resolve::precision(spec));
    (i128::from(kinds.storage), i128::from(kinds.compute))
}

pub(in crate::plan) fn narrow(bytes: i128) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
