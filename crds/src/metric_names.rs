//! Every metric's name, help and labels, so that code, dashboards and alerts cannot drift
//! apart: a test holds the chart against this list.

/// A metric's name and help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub help: &'static str,
}

const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help }
}

/// Labels of every trainer metric. A plain `namespace` would be renamed by a PodMonitor.
pub mod label {
    pub const FINETUNE: &str = "finetune";
    pub const FINETUNE_NAMESPACE: &str = "finetune_namespace";
    pub const ATTEMPT: &str = "attempt";
    pub const RANK: &str = "rank";
    /// GPU index, on GPU metrics alone.
    pub const GPU: &str = "gpu";
}

/// What each trainer process exposes.
pub mod trainer {
    use super::{Metric, metric};

    pub const TOKENS: Metric = metric(
        "vlft_trainer_tokens_total",
        "Tokens that went through a training step.",
    );
    pub const SUPERVISED_TOKENS: Metric = metric(
        "vlft_trainer_supervised_tokens_total",
        "Tokens the loss was computed on.",
    );
    pub const SAMPLES: Metric = metric(
        "vlft_trainer_samples_total",
        "Samples that went through a training step.",
    );
    pub const IMAGES: Metric = metric(
        "vlft_trainer_images_total",
        "Images that went through a training step.",
    );
    pub const TOKENS_PER_SECOND: Metric = metric(
        "vlft_trainer_tokens_per_second",
        "Tokens per second over the last logged steps.",
    );
    pub const SAMPLES_PER_SECOND: Metric = metric(
        "vlft_trainer_samples_per_second",
        "Samples per second over the last logged steps.",
    );
    pub const IMAGES_PER_SECOND: Metric = metric(
        "vlft_trainer_images_per_second",
        "Images per second over the last logged steps.",
    );
    pub const STEP: Metric = metric("vlft_trainer_step", "Optimizer steps done.");
    pub const TOTAL_STEPS: Metric = metric(
        "vlft_trainer_steps_planned",
        "Optimizer steps of the whole run.",
    );
    pub const EPOCH: Metric = metric("vlft_trainer_epoch", "Epochs done, as a fraction.");
    pub const LOSS: Metric = metric(
        "vlft_trainer_loss",
        "Mean loss per supervised token of the last step.",
    );
    pub const VALIDATION_LOSS: Metric = metric(
        "vlft_trainer_validation_loss",
        "Mean loss per supervised token of the last evaluation.",
    );
    pub const LEARNING_RATE: Metric = metric(
        "vlft_trainer_learning_rate",
        "Learning rate of the last step.",
    );
    pub const GRADIENT_NORM: Metric = metric(
        "vlft_trainer_gradient_norm",
        "Global gradient norm of the last step, before clipping.",
    );
    pub const NON_FINITE_STEPS: Metric = metric(
        "vlft_trainer_non_finite_steps_total",
        "Steps skipped because loss or gradients were not finite.",
    );
    pub const STEP_SECONDS: Metric = metric(
        "vlft_trainer_step_seconds",
        "Duration of an optimizer step.",
    );
    pub const DATA_WAIT_SECONDS: Metric = metric(
        "vlft_trainer_data_wait_seconds_total",
        "Seconds a step waited for its batch.",
    );
    pub const SAMPLES_DROPPED: Metric = metric(
        "vlft_trainer_samples_dropped_total",
        "Samples left out because they exceed maxLength.",
    );
    pub const GPU_MEMORY_ALLOCATED: Metric = metric(
        "vlft_trainer_gpu_memory_allocated_bytes",
        "Bytes of live tensors on the GPU (caching allocator).",
    );
    pub const GPU_MEMORY_RESERVED: Metric = metric(
        "vlft_trainer_gpu_memory_reserved_bytes",
        "Bytes the caching allocator holds on the GPU.",
    );
    pub const GPU_MEMORY_PEAK: Metric = metric(
        "vlft_trainer_gpu_memory_peak_bytes",
        "Most bytes of live tensors on the GPU since the start.",
    );
    pub const GPU_MEMORY_USED: Metric = metric(
        "vlft_trainer_gpu_memory_used_bytes",
        "Bytes used on the GPU by all processes (NVML).",
    );
    pub const GPU_MEMORY_TOTAL: Metric = metric(
        "vlft_trainer_gpu_memory_total_bytes",
        "Bytes of memory the GPU has (NVML).",
    );
    pub const GPU_UTILIZATION: Metric = metric(
        "vlft_trainer_gpu_utilization_ratio",
        "Share of time a kernel ran on the GPU (NVML).",
    );
    pub const PROCESS_MEMORY: Metric = metric(
        "vlft_trainer_process_memory_bytes",
        "Resident memory of the trainer process.",
    );
    pub const PROCESS_MEMORY_PEAK: Metric = metric(
        "vlft_trainer_process_memory_peak_bytes",
        "Most resident memory of the trainer process.",
    );
    pub const CHECKPOINT_SECONDS: Metric = metric(
        "vlft_trainer_checkpoint_seconds",
        "Seconds training stood still for a checkpoint.",
    );
    pub const CHECKPOINT_WRITE_SECONDS: Metric = metric(
        "vlft_trainer_checkpoint_write_seconds",
        "Seconds from a checkpoint's step until it was published.",
    );
    pub const CHECKPOINT_BYTES: Metric = metric(
        "vlft_trainer_checkpoint_bytes",
        "Size of the last checkpoint.",
    );
    pub const CHECKPOINT_STEP: Metric = metric(
        "vlft_trainer_checkpoint_step",
        "Step of the last complete checkpoint.",
    );

    /// All of them.
    pub const ALL: &[Metric] = &[
        TOKENS,
        SUPERVISED_TOKENS,
        SAMPLES,
        IMAGES,
        TOKENS_PER_SECOND,
        SAMPLES_PER_SECOND,
        IMAGES_PER_SECOND,
        STEP,
        TOTAL_STEPS,
        EPOCH,
        LOSS,
        VALIDATION_LOSS,
        LEARNING_RATE,
        GRADIENT_NORM,
        NON_FINITE_STEPS,
        STEP_SECONDS,
        DATA_WAIT_SECONDS,
        SAMPLES_DROPPED,
        GPU_MEMORY_ALLOCATED,
        GPU_MEMORY_RESERVED,
        GPU_MEMORY_PEAK,
        GPU_MEMORY_USED,
        GPU_MEMORY_TOTAL,
        GPU_UTILIZATION,
        PROCESS_MEMORY,
        PROCESS_MEMORY_PEAK,
        CHECKPOINT_SECONDS,
        CHECKPOINT_WRITE_SECONDS,
        CHECKPOINT_BYTES,
        CHECKPOINT_STEP,
    ];
}

/// What the operator exposes.
pub mod operator {
    use super::{Metric, metric};

    pub const FINETUNES: Metric = metric(
        "vlft_operator_finetunes",
        "VLFineTunes by namespace and phase.",
    );
    pub const RECONCILES: Metric = metric(
        "vlft_operator_reconciles_total",
        "Reconciliations by result.",
    );
    pub const RECONCILE_SECONDS: Metric = metric(
        "vlft_operator_reconcile_seconds",
        "Duration of a reconciliation.",
    );
    pub const RECONCILE_ERRORS: Metric = metric(
        "vlft_operator_reconcile_errors_total",
        "Failed reconciliations by kind of error.",
    );
    pub const ATTEMPTS: Metric = metric(
        "vlft_operator_attempts_total",
        "Ended attempts by failure class.",
    );
    pub const LOST_STEPS: Metric = metric(
        "vlft_operator_lost_steps_total",
        "Training steps that had to be repeated, by the class of the attempt that lost them.",
    );
    pub const LOST_GPU_SECONDS: Metric = metric(
        "vlft_operator_lost_gpu_seconds_total",
        "GPU seconds of repeated steps and of attempts that made none, by class.",
    );
    pub const ADJUSTMENTS: Metric = metric(
        "vlft_operator_memory_adjustments_total",
        "Changes of a plan that an out-of-memory led to, by field.",
    );
    pub const LEADER: Metric = metric(
        "vlft_operator_leader",
        "1 on the replica that holds the lease.",
    );

    /// All of them.
    pub const ALL: &[Metric] = &[
        FINETUNES,
        RECONCILES,
        RECONCILE_SECONDS,
        RECONCILE_ERRORS,
        ATTEMPTS,
        LOST_STEPS,
        LOST_GPU_SECONDS,
        ADJUSTMENTS,
        LEADER,
    ];
}
