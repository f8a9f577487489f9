//! `status`: what the operator has seen and decided. Bounded everywhere: at most
//! [`MAX_ATTEMPTS`] attempts, messages of [`MAX_MESSAGE_BYTES`], log tails of
//! [`MAX_LOG_TAIL_BYTES`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::parallelism::Strategy;

/// Attempts kept in status; older ones are summarised in [`VLFineTuneStatus::ended`].
pub const MAX_ATTEMPTS: usize = 20;
/// Adjustments kept in status; the ladder is shorter.
pub const MAX_ADJUSTMENTS: usize = 40;
/// Longest message of a verdict or condition, bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024;
/// Longest log tail of a verdict, bytes.
pub const MAX_LOG_TAIL_BYTES: usize = 2048;

/// What the operator has seen and decided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VLFineTuneStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: Phase,
    /// Reason of the condition that decided the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of the current attempt; 0 before the first. It never falls.
    #[serde(default)]
    pub attempt: i64,
    /// The newest attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub attempts: Vec<Attempt>,
    /// Attempts that followed a failure.
    #[serde(default)]
    pub restarts: i64,
    /// Failed attempts that count against `runPolicy.backoffLimit`.
    #[serde(default)]
    pub failures: i64,
    /// Ended attempts by class, those that `attempts` no longer holds included.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub ended: std::collections::BTreeMap<String, i64>,
    /// GPUs of a whole attempt; 0 on CPU.
    #[serde(default)]
    pub gpus: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<CheckpointStatus>,
    /// What the finished run measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultStatus>,
    /// Changes of the plan that an out-of-memory led to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    pub adjustments: Vec<Adjustment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_estimate: Option<MemoryEstimate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_work: Option<LostWork>,
    /// Commit that an `hf://` revision was resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_revision: Option<String>,
}

/// The state in one word, for people; conditions are for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    #[default]
    Pending,
    /// The spec was not accepted; see the condition `Accepted`.
    Rejected,
    /// Waiting for a queue to admit the attempt.
    Queued,
    /// Pods are being scheduled, pulled, started.
    Starting,
    Running,
    /// A failed attempt is being followed by the next.
    Restarting,
    /// Writing its checkpoint before it is suspended.
    Suspending,
    Suspended,
    Succeeded,
    Failed,
}

impl Phase {
    /// Whether nothing more will run.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Condition types. All follow "True is the normal, wanted state", but for `MemoryAtRisk`.
pub mod condition {
    /// The spec is valid and supported.
    pub const ACCEPTED: &str = "Accepted";
    /// Volumes and children exist.
    pub const READY_TO_START: &str = "ReadyToStart";
    /// A queue has admitted the attempt.
    pub const ADMITTED: &str = "Admitted";
    /// All pods of the attempt run and make steps.
    pub const RUNNING: &str = "Running";
    /// The run has ended with a trained model.
    pub const COMPLETE: &str = "Complete";
    /// The run has ended without one.
    pub const FAILED: &str = "Failed";
    /// The run is stopped by `runPolicy.suspend`.
    pub const SUSPENDED: &str = "Suspended";
    /// The last resume continued bit for bit.
    pub const EXACT_RESUME: &str = "ExactResume";
    /// The memory estimate exceeds the GPU.
    pub const MEMORY_AT_RISK: &str = "MemoryAtRisk";
}

/// One attempt: one Job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub number: i64,
    pub job_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Checkpoint this attempt continued from; absent means it began anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<ResumedFrom>,
    /// Last step that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step: Option<i64>,
    /// Samples per forward pass, where the estimate of memory or an out-of-memory decided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch_size: Option<i64>,
    /// What `strategy: Auto` was decided to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Steps of it that later attempts had to repeat; absent until one has told where it resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_steps: Option<i64>,
    /// How it ended; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumedFrom {
    pub step: i64,
    /// sha256 of the checkpoint's manifest.
    pub digest: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub class: FailureClass,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// First rank that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Last lines of the first failing rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
}

/// Why an attempt ended. Also the `reason` of conditions, events and metrics.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum FailureClass {
    Completed,
    UserError,
    DataError,
    OutOfMemory,
    Hang,
    Drained,
    PeerLost,
    Storage,
    Bug,
    NodeLost,
    Preempted,
    Evicted,
    Startup,
    DeadlineExceeded,
    Suspended,
}

impl FailureClass {
    /// The class as written in reasons and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::UserError => "UserError",
            Self::DataError => "DataError",
            Self::OutOfMemory => "OutOfMemory",
            Self::Hang => "Hang",
            Self::Drained => "Drained",
            Self::PeerLost => "PeerLost",
            Self::Storage => "Storage",
            Self::Bug => "Bug",
            Self::NodeLost => "NodeLost",
            Self::Preempted => "Preempted",
            Self::Evicted => "Evicted",
            Self::Startup => "Startup",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Suspended => "Suspended",
        }
    }

    /// Whether the same document on the same data would fail in the same way again.
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::UserError | Self::DataError | Self::DeadlineExceeded
        )
    }

    /// Whether the cluster and not the run is the cause: free of `backoffLimit` as long as
    /// steps advance.
    pub fn is_disruption(self) -> bool {
        matches!(
            self,
            Self::Drained | Self::NodeLost | Self::Preempted | Self::Evicted | Self::Suspended
        )
    }
}

/// Where the run stands, as rank 0 told last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressStatus {
    pub step: i64,
    pub total_steps: i64,
    /// For example `42%`.
    pub percent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<String>,
    /// Peak memory of the device, or of the process on CPU, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<i64>,
    /// Time left, for example `3m20s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    pub step: i64,
    /// `pvc://CLAIM/PATH`
    pub path: String,
    /// sha256 of the manifest.
    pub digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// What the finished run measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultStatus {
    /// The exported model folder, `pvc://CLAIM/PATH`.
    pub model_uri: String,
    /// Mean training loss of the last logged steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_loss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<String>,
    /// Generation-based metrics by name.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub metrics: std::collections::BTreeMap<String, String>,
}

/// One change of the plan after an out-of-memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adjustment {
    /// Attempt that runs with it.
    pub attempt: i64,
    pub field: String,
    pub from: String,
    pub to: String,
    pub reason: String,
}

/// Bytes per rank at the peak of a step; a part that is not there at that moment is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryEstimate {
    pub total_bytes: i64,
    /// Weights, masters, gradients and optimizer states: what no micro-batch does without.
    pub states_bytes: i64,
    pub weights_bytes: i64,
    /// float32 copies that the optimizer updates.
    pub masters_bytes: i64,
    pub gradients_bytes: i64,
    pub optimizer_bytes: i64,
    /// Copies in the compute kind and gathered units.
    pub working_bytes: i64,
    /// Of the language model.
    pub activations_bytes: i64,
    /// Of vision tower and projector, pixels included.
    pub vision_bytes: i64,
    pub logits_bytes: i64,
    /// CUDA context, NCCL, fragmentation.
    pub overhead_bytes: i64,
    /// What offload keeps in host memory; not part of the total.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub host_bytes: i64,
    /// Memory of the smallest GPU that the run may land on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_bytes: Option<i64>,
}

fn is_zero(bytes: &i64) -> bool {
    *bytes == 0
}

/// Work that was done and had to be done again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostWork {
    pub steps: i64,
    /// GPUs x seconds of those steps, and of attempts that made none.
    pub gpu_seconds: i64,
    /// By the class that the attempt ended in.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub by_cause: std::collections::BTreeMap<String, LostToCause>,
}

/// What one cause cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostToCause {
    pub steps: i64,
    pub gpu_seconds: i64,
}
