//! The out-of-memory ladder: a plan -> the next plan, which needs less memory and, on all rungs
//! but the last two, computes the same.

use crate::finetune::VLFineTuneSpec;
use crate::parallelism::{Offload, Strategy};
use crate::plan::batch::{GPU_MICRO_BATCH, batch_plan, largest_divisor};
use crate::plan::resolve;
use crate::run_policy::DataReduction;
use crate::status::Adjustment;
use crate::unsupported::unsupported_parts;

/// Chunks of supervised rows that the ladder goes down to.
const LOSS_CHUNKS: [i64; 2] = [128, 32];
/// Pixels of an image that the ladder goes down to: 768, 384, 192 and 96 tokens of 28 x 28.
const MAX_PIXELS: [i64; 4] = [602_112, 301_056, 150_528, 75_264];
/// Shortest `maxLength` that the ladder goes down to.
const SHORTEST: i64 = 256;

/// Fields that the ladder changes, from its top.
pub const FIELDS: [&str; 7] = [
    "training.microBatchSize",
    "training.gradientCheckpointing",
    "training.lossChunk",
    "parallelism.strategy",
    "parallelism.offload",
    "dataset.maxPixels",
    "dataset.maxLength",
];

/// One rung: a field and its new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    MicroBatchSize(i64),
    GradientCheckpointing,
    LossChunk(i64),
    Strategy(Strategy),
    Offload(Offload),
    MaxPixels(i64),
    MaxLength(i64),
}

impl Change {
    /// Path of the field, from `spec`.
    pub fn field(self) -> &'static str {
        let [
            micro,
            checkpointing,
            chunk,
            strategy,
            offload,
            pixels,
            length,
        ] = FIELDS;
        match self {
            Self::MicroBatchSize(_) => micro,
            Self::GradientCheckpointing => checkpointing,
            Self::LossChunk(_) => chunk,
            Self::Strategy(_) => strategy,
            Self::Offload(_) => offload,
            Self::MaxPixels(_) => pixels,
            Self::MaxLength(_) => length,
        }
    }

    /// The new value, as the spec would hold it.
    pub fn to(self) -> String {
        match self {
            Self::MicroBatchSize(n) | Self::LossChunk(n) => n.to_string(),
            Self::MaxPixels(n) | Self::MaxLength(n) => n.to_string(),
            Self::GradientCheckpointing => "true".to_owned(),
            Self::Strategy(strategy) => strategy.as_str().to_owned(),
            Self::Offload(offload) => offload.as_str().to_owned(),
        }
    }

    /// The value that the spec holds now.
    pub fn from(self, spec: &VLFineTuneSpec) -> String {
        let or_chosen = |value: Option<i64>| value.map_or("chosen".to_owned(), |n| n.to_string());
        match self {
            Self::MicroBatchSize(_) => micro_batch_size(spec).to_string(),
            Self::GradientCheckpointing => resolve::gradient_checkpointing(spec).to_string(),
            Self::LossChunk(_) => or_chosen(spec.training.loss_chunk),
            Self::Strategy(_) => spec.parallelism.strategy.as_str().to_owned(),
            Self::Offload(_) => spec.parallelism.offload.as_str().to_owned(),
            Self::MaxPixels(_) => or_chosen(spec.dataset.max_pixels),
            Self::MaxLength(_) => spec.dataset.max_length.to_string(),
        }
    }

    /// Lets a spec follow; one that needs less already stays as it is.
    pub fn apply(self, spec: &mut VLFineTuneSpec) {
        let least = |value: Option<i64>, n: i64| Some(value.map_or(n, |value| value.min(n)));
        match self {
            Self::MicroBatchSize(n) => {
                let n = largest_divisor(share(spec), n);
                spec.training.micro_batch_size = least(spec.training.micro_batch_size, n);
            }
            Self::GradientCheckpointing => spec.training.gradient_checkpointing = Some(true),
            Self::LossChunk(n) => spec.training.loss_chunk = least(spec.training.loss_chunk, n),
            Self::Strategy(strategy) => {
                let now = spec.parallelism.strategy;
                spec.parallelism.strategy = now.max(strategy);
            }
            Self::Offload(offload) => {
                let now = spec.parallelism.offload;
                spec.parallelism.offload = now.max(offload);
            }
            Self::MaxPixels(n) => {
                let n = n.max(spec.dataset.min_pixels.unwrap_or(0));
                spec.dataset.max_pixels = least(spec.dataset.max_pixels, n);
            }
            Self::MaxLength(n) => spec.dataset.max_length = spec.dataset.max_length.min(n),
        }
    }

    /// Reads a rung back from status; `None` for what no release has written.
    pub fn read(field: &str, to: &str) -> Option<Self> {
        let number = || to.parse::<i64>().ok().filter(|n| *n > 0);
        let change = match FIELDS.iter().position(|known| *known == field)? {
            0 => Self::MicroBatchSize(number()?),
            1 => Self::GradientCheckpointing,
            2 => Self::LossChunk(number()?),
            3 => Self::Strategy(Strategy::read(to)?),
            4 => Self::Offload(Offload::read(to)?),
            5 => Self::MaxPixels(number()?),
            _ => Self::MaxLength(number()?),
        };
        Some(change)
    }
}

/// Lets a spec follow all changes that earlier attempts led to.
pub fn apply_all(spec: &mut VLFineTuneSpec, adjustments: &[Adjustment]) {
    let changes = adjustments.iter();
    for change in changes.filter_map(|a| Change::read(&a.field, &a.to)) {
        change.apply(spec);
    }
}

type Rung = fn(&VLFineTuneSpec) -> Option<Change>;

/// From what changes nothing but rounding to what changes the data.
const LADDER: [Rung; 7] = [
    half_micro_batch,
    checkpointing,
    smaller_chunk,
    sharding,
    offload,
    fewer_pixels,
    shorter_samples,
];

/// The next rung that this release can act on; `None` if nothing is left.
pub fn next(spec: &VLFineTuneSpec) -> Option<Change> {
    let found = LADDER.iter().filter_map(|rung| rung(spec));
    found.into_iter().find(|change| is_supported(*change, spec))
}

fn is_supported(change: Change, spec: &VLFineTuneSpec) -> bool {
    let mut changed = spec.clone();
    change.apply(&mut changed);
    unsupported_parts(&changed).len() <= unsupported_parts(spec).len()
}

fn micro_batch_size(spec: &VLFineTuneSpec) -> i64 {
    batch_plan(spec, GPU_MICRO_BATCH).map_or(1, |plan| plan.micro_batch_size)
}

/// Samples of one rank in one optimizer step.
fn share(spec: &VLFineTuneSpec) -> i64 {
    (spec.training.global_batch_size / spec.workers.world_size().max(1)).max(1)
}

/// Half the micro-batch, or the next smaller divisor of the rank's share: the accumulation grows
/// by as much, and the global batch stays.
fn half_micro_batch(spec: &VLFineTuneSpec) -> Option<Change> {
    let now = micro_batch_size(spec);
    let half = largest_divisor(share(spec), now / 2);
    (now > 1).then_some(Change::MicroBatchSize(half))
}

fn checkpointing(spec: &VLFineTuneSpec) -> Option<Change> {
    let off = !resolve::gradient_checkpointing(spec);
    off.then_some(Change::GradientCheckpointing)
}

fn smaller_chunk(spec: &VLFineTuneSpec) -> Option<Change> {
    let now = spec.training.loss_chunk.unwrap_or(i64::MAX);
    let smaller = LOSS_CHUNKS.into_iter().find(|chunk| *chunk < now);
    smaller.map(Change::LossChunk)
}

fn sharding(spec: &VLFineTuneSpec) -> Option<Change> {
    let next = match spec.parallelism.strategy {
        Strategy::Auto | Strategy::Ddp | Strategy::Zero1 => Strategy::Zero2,
        Strategy::Zero2 => Strategy::Zero3,
        Strategy::Zero3 => return None,
    };
    (spec.workers.world_size() > 1).then_some(Change::Strategy(next))
}

fn offload(spec: &VLFineTuneSpec) -> Option<Change> {
    let next = match spec.parallelism.offload {
        Offload::None => Offload::Optimizer,
        Offload::Optimizer => Offload::Parameters,
        Offload::Parameters => return None,
    };
    Some(Change::Offload(next))
}

fn fewer_pixels(spec: &VLFineTuneSpec) -> Option<Change> {
    let allowed = may_reduce(spec, DataReduction::MaxPixels);
    let now = spec.dataset.max_pixels.unwrap_or(i64::MAX);
    let least = spec.dataset.min_pixels.unwrap_or(0);
    let fewer = MAX_PIXELS
        .into_iter()
        .find(|pixels| *pixels < now && *pixels >= least);
    fewer.filter(|_| allowed).map(Change::MaxPixels)
}

fn shorter_samples(spec: &VLFineTuneSpec) -> Option<Change> {
    let allowed = may_reduce(spec, DataReduction::MaxLength);
    let half = spec.dataset.max_length / 2;
    (allowed && half >= SHORTEST).then_some(Change::MaxLength(half))
}

fn may_reduce(spec: &VLFineTuneSpec, what: DataReduction) -> bool {
    spec.run_policy.oom_may_reduce.contains(&what)
}

#[cfg(test)]
mod tests;
