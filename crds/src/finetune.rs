//! The root of the custom resource and the rules that span its sections.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::dataset::Dataset;
use crate::evaluation::Evaluation;
use crate::method::Method;
use crate::model::Model;
use crate::output::Output;
use crate::parallelism::Parallelism;
use crate::run_policy::RunPolicy;
use crate::scheduling::Scheduling;
use crate::status::VLFineTuneStatus;
use crate::training::{Precision, Training};
use crate::workers::Workers;

/// Fine-tunes a vision-language model.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "vlft.dev",
    version = "v1alpha1",
    kind = "VLFineTune",
    plural = "vlfinetunes",
    shortname = "vlft",
    category = "all",
    category = "ml",
    namespaced,
    status = "VLFineTuneStatus",
    derive = "PartialEq",
    cel,
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name may have at most 40 characters: pod host names are made from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be an RFC 1035 label (a-z, 0-9 and -, starting with a letter): it names a Service"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "PROGRESS", type_ = "string", json_path = ".status.progress.percent"),
    printcolumn(name = "STEP", type_ = "integer", json_path = ".status.progress.step"),
    printcolumn(name = "LOSS", type_ = "string", json_path = ".status.progress.loss"),
    printcolumn(name = "GPUS", type_ = "integer", json_path = ".status.gpus"),
    printcolumn(name = "RESTARTS", type_ = "integer", json_path = ".status.restarts"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "TOKENS/S", type_ = "string", json_path = ".status.progress.tokensPerSecond", priority = 1),
    printcolumn(name = "QUEUE", type_ = "string", json_path = ".spec.scheduling.queueName", priority = 1),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.progress.eta", priority = 1),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.reason", priority = 1),
)]
#[x_kube(
    validation = Rule::new(
        "!has(self.training.microBatchSize) || self.training.globalBatchSize % (self.training.microBatchSize * self.workers.replicas * (has(self.workers.processesPerReplica) ? self.workers.processesPerReplica : (self.workers.device == 'CPU' ? 1 : (has(self.workers.gpu) ? self.workers.gpu.count : 1)))) == 0")
        .message("training.globalBatchSize must be a multiple of training.microBatchSize x workers.replicas x processes of each replica"),
    validation = Rule::new("!has(self.resumeFrom) || has(self.resumeFrom.name) != has(self.resumeFrom.path)")
        .message("resumeFrom takes either name (another VLFineTune) or path (a run folder)"),
    validation = Rule::new(
        "!has(self.evaluation.everySteps) || (has(self.dataset.validation) && self.dataset.validation.size() > 0)")
        .message("evaluation.everySteps needs dataset.validation: name the data to evaluate on, or remove it"),
    validation = Rule::new(
        "self.output.adapter != 'Adapter' || has(self.method.lora) || has(self.method.qlora) || has(self.method.adapter)")
        .message("output.adapter: Adapter needs a method with adapters (lora); use Both or Merged"),
)]
pub struct VLFineTuneSpec {
    pub model: Model,
    pub dataset: Dataset,
    #[serde(default)]
    pub method: Method,
    /// Absent means BFloat16Mixed on GPUs and Float32 on CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    #[serde(default)]
    pub training: Training,
    #[serde(default)]
    pub parallelism: Parallelism,
    #[serde(default)]
    pub workers: Workers,
    #[serde(default)]
    pub checkpoint: Checkpoint,
    #[serde(default)]
    pub evaluation: Evaluation,
    #[serde(default)]
    pub output: Output,
    #[serde(default)]
    pub scheduling: Scheduling,
    #[serde(default)]
    pub run_policy: RunPolicy,
    /// Starts from another run's checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_from: Option<ResumeFrom>,
}

/// Another run's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeFrom {
    /// A VLFineTune of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub name: Option<String>,
    /// A run folder as `pvc://CLAIM/PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^(pvc|file)://.+$"))]
    pub path: Option<String>,
    /// The checkpoint's step; absent means the last complete one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000_000))]
    pub step: Option<i64>,
}
