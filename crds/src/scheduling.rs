//! `spec.scheduling`: queues and gangs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Kueue LocalQueue that admits the Job of each attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub queue_name: Option<String>,
    /// Who starts all pods of an attempt together or none.
    #[serde(default)]
    pub gang: Gang,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// Who schedules the pods of an attempt as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Gang {
    /// Nobody.
    #[default]
    None,
    /// The in-tree scheduler, through a `scheduling.k8s.io` PodGroup.
    PodGroup,
    /// Volcano.
    Volcano,
}
