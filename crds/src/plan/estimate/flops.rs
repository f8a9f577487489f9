//! Floating-point operations of a step: two for each weight of a matrix and each row it is
//! multiplied with, and attention's products of queries, keys and values.

use crate::finetune::VLFineTuneSpec;
use crate::plan::memory::Workload;
use crate::plan::memory::groups::{Group, groups};
use crate::plan::model_shape::{ModelShape, UnitKind};
use crate::plan::resolve;

/// Operations of forward and backward of one micro-batch on one rank, recomputation included.
///
/// A frozen unit below everything that trains runs forward alone; a frozen one above needs the
/// gradient of its input; a trained one that of its weights as well. Attention is taken over
/// whole samples, causal ones at half the cost.
pub fn step_flops(shape: &ModelShape, spec: &VLFineTuneSpec, workload: Workload) -> f64 {
    let recompute = resolve::gradient_checkpointing(spec);
    let samples = (workload.tokens / spec.dataset.max_length.max(1)).max(1);
    let mut tracked = false;
    let mut total = 0.0;
    for group in groups(shape, spec) {
        tracked |= group.is_trained();
        let forward = forward(&group, shape, workload, samples);
        let again = match group.unit.kind {
            // The loss runs once, whatever is recomputed.
            UnitKind::Head => 0.0,
            _ if recompute => 1.0,
            _ => 0.0,
        };
        let passes = match (tracked, group.trains) {
            (false, _) => 1.0,
            (true, false) => 2.0 + again,
            (true, true) => 3.0 + again,
        };
        total += group.count as f64 * forward * passes;
    }
    total
}

/// Operations of one unit's forward.
fn forward(group: &Group, shape: &ModelShape, workload: Workload, samples: i64) -> f64 {
    let (tokens, patches) = (workload.tokens as f64, workload.patches as f64);
    let linear: i64 = group
        .unit
        .list
        .iter()
        .filter(|parameter| parameter.decay)
        .map(|parameter| parameter.numel)
        .sum();
    let matrices = 2.0 * linear as f64;
    match group.unit.kind {
        UnitKind::PatchEmbed { .. } => matrices * patches,
        UnitKind::Vision(vision) => {
            let rows_per_sample = patches / samples as f64;
            matrices * patches + 4.0 * patches * rows_per_sample * vision.width as f64
        }
        UnitKind::Projector { merge, .. } => matrices * patches / merge.max(1) as f64,
        UnitKind::Embedding => 0.0,
        UnitKind::Decoder(decoder) => {
            let rows_per_sample = tokens / samples as f64;
            let width = (decoder.heads * decoder.head_size) as f64;
            matrices * tokens + 2.0 * tokens * rows_per_sample * width
        }
        UnitKind::Head => {
            let weights = shape.vocabulary as f64 * shape.hidden as f64;
            2.0 * weights * workload.supervised as f64
        }
    }
}
