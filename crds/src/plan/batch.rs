//! Global batch -> micro-batch x accumulation x ranks.

use crate::finetune::VLFineTuneSpec;

/// Samples per forward pass on a GPU where neither the spec nor an estimate of memory decides.
pub const GPU_MICRO_BATCH: i64 = 4;

/// How one optimizer step's samples are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlan {
    /// Samples per forward pass on one rank.
    pub micro_batch_size: i64,
    /// Forward passes per optimizer step on one rank.
    pub accumulation_steps: i64,
    /// Ranks.
    pub world_size: i64,
}

impl BatchPlan {
    /// Samples per optimizer step.
    pub fn global_batch_size(self) -> i64 {
        self.micro_batch_size * self.accumulation_steps * self.world_size
    }
}

/// The global batch cannot be spread evenly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.training.globalBatchSize: {global} is not a multiple of {unit} ({reason}); use a multiple of {unit}"
)]
pub struct UnevenBatch {
    pub global: i64,
    pub unit: i64,
    pub reason: &'static str,
}

/// Spreads the global batch. An absent micro-batch size means: all samples of a rank at once
/// on CPU, where memory is plenty; on GPUs the largest divisor of the rank's share up to
/// `gpu_default`.
pub fn batch_plan(spec: &VLFineTuneSpec, gpu_default: i64) -> Result<BatchPlan, UnevenBatch> {
    let global = spec.training.global_batch_size;
    let world_size = spec.workers.world_size();
    let share = divide(global, world_size, "replicas x processes of each replica")?;
    let micro_batch_size = match spec.training.micro_batch_size {
        Some(size) => size,
        None if spec.workers.gpus_per_replica() == 0 => share,
        None => largest_divisor(share, gpu_default),
    };
    let unit = micro_batch_size * world_size;
    let accumulation_steps = divide(global, unit, "microBatchSize x replicas x processes")?;
    Ok(BatchPlan {
        micro_batch_size,
        accumulation_steps,
        world_size,
    })
}

fn divide(global: i64, unit: i64, reason: &'static str) -> Result<i64, UnevenBatch> {
    if unit < 1 || global < unit || global % unit != 0 {
        return Err(UnevenBatch {
            global,
            unit,
            reason,
        });
    }
    Ok(global / unit)
}

/// The largest divisor of a number up to a bound, at least 1.
pub fn largest_divisor(of: i64, at_most: i64) -> i64 {
    (1..=at_most.clamp(1, of.max(1)))
        .rev()
        .find(|size| of % size == 0)
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tests::minimal;

    #[test]
    fn spreads_over_ranks_and_accumulation() {
        let mut spec = minimal().spec;
        spec.training.global_batch_size = 24;
        spec.workers.replicas = 2;
        let plan = batch_plan(&spec, 5).unwrap();
        assert_eq!(
            (
                plan.micro_batch_size,
                plan.accumulation_steps,
                plan.world_size
            ),
            (4, 3, 2)
        );
        assert_eq!(plan.global_batch_size(), 24);
    }

    #[test]
    fn uneven_batches_name_field_and_remedy() {
        let mut spec = minimal().spec;
        spec.training.global_batch_size = 10;
        spec.training.micro_batch_size = Some(4);
        let message = batch_plan(&spec, 8).unwrap_err().to_string();
        assert!(message.contains("globalBatchSize") && message.contains("multiple of 4"));
    }
}
