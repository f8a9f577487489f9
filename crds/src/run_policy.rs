//! `spec.runPolicy`: retries, deadlines, suspension.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::FailureClass;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.deleteAfterFinished || has(self.ttlSecondsAfterFinished)")
        .message("runPolicy.deleteAfterFinished needs ttlSecondsAfterFinished: it says when"),
    validation = Rule::new("!has(self.oomMayReduce) || self.oomMayReduce.size() == 0 || self.oomPolicy == 'Adapt'")
        .message("runPolicy.oomMayReduce is for oomPolicy: Adapt; remove it or set oomPolicy"),
    validation = Rule::new("!has(self.backoffLimitPerClass) || self.backoffLimitPerClass.all(a, self.backoffLimitPerClass.filter(b, b.class == a.class).size() == 1)")
        .message("runPolicy.backoffLimitPerClass names a class twice; keep one of them"),
)]
pub struct RunPolicy {
    /// Failed attempts after which the run is given up.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub backoff_limit: i64,
    /// Attempts that may end in one class before the run is given up, disruptions included;
    /// classes that are not named count against `backoffLimit` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backoff_limit_per_class: Vec<ClassLimit>,
    /// Seconds from the first start after which the run is ended; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds after the end when child objects are deleted; absent means never. The
    /// checkpoint volume and this resource stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i64>,
    /// Deletes this resource too once `ttlSecondsAfterFinished` has passed.
    #[serde(default)]
    pub delete_after_finished: bool,
    /// Checkpoints and stops the run; `false` resumes it.
    #[serde(default)]
    pub suspend: bool,
    /// What follows an out-of-memory.
    #[serde(default)]
    pub oom_policy: OomPolicy,
    /// Data reductions that `oomPolicy: Adapt` may use once nothing else helps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub oom_may_reduce: Vec<DataReduction>,
    /// Seconds a rank may stand still before the attempt ends as `Hang`; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub hang_timeout_seconds: Option<i64>,
    /// Seconds a node may be NotReady before its pods are given up.
    #[serde(default = "default_node_lost_timeout_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub node_lost_timeout_seconds: i64,
}

impl Default for RunPolicy {
    fn default() -> Self {
        Self {
            backoff_limit: default_backoff_limit(),
            backoff_limit_per_class: Vec::new(),
            active_deadline_seconds: None,
            ttl_seconds_after_finished: None,
            delete_after_finished: false,
            suspend: false,
            oom_policy: OomPolicy::default(),
            oom_may_reduce: Vec::new(),
            hang_timeout_seconds: None,
            node_lost_timeout_seconds: default_node_lost_timeout_seconds(),
        }
    }
}

/// The budget of one class of failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassLimit {
    pub class: FailureClass,
    #[schemars(range(min = 0, max = 100))]
    pub limit: i64,
}

/// What follows an out-of-memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OomPolicy {
    /// The next attempt runs with a plan that needs less memory; each change is recorded.
    Adapt,
    /// It counts as any other failure.
    #[default]
    Fail,
}

/// A change of the data that saves memory and may change the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DataReduction {
    MaxPixels,
    MaxLength,
}

fn default_backoff_limit() -> i64 {
    3
}

fn default_node_lost_timeout_seconds() -> i64 {
    300
}
