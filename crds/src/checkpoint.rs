//! `spec.checkpoint`: how often, how many, and on which volume.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.deletionPolicy != 'Delete' || !has(self.volume.claimName)")
    .message("checkpoint.deletionPolicy: Delete is for a claim that is made; an existing one (volume.claimName) always stays: use Retain"))]
pub struct Checkpoint {
    /// Optimizer steps between two checkpoints; one more is made at the end and on SIGTERM.
    #[serde(default = "default_every_steps")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub every_steps: i64,
    /// How many of the newest complete checkpoints are kept.
    #[serde(default = "default_keep_last")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep_last: i64,
    /// Where checkpoints and the exported model are written.
    #[serde(default)]
    pub volume: CheckpointVolume,
    /// Whether a claim made for this resource goes with it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            every_steps: default_every_steps(),
            keep_last: default_keep_last(),
            volume: CheckpointVolume::default(),
            deletion_policy: DeletionPolicy::default(),
        }
    }
}

/// An existing claim, or the size of one to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.claimName) != has(self.size)")
        .message("checkpoint.volume takes either claimName (an existing claim) or size (a claim to be made)"),
    validation = Rule::new("!has(self.claimName) || !has(self.storageClassName)")
        .message("checkpoint.volume.storageClassName is for a claim that is made (size); remove it beside claimName"),
)]
pub struct CheckpointVolume {
    /// An existing claim in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Size of the claim to be made, for example `100Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Its storage class; absent means the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for CheckpointVolume {
    fn default() -> Self {
        Self {
            claim_name: None,
            size: Some(Quantity("20Gi".to_owned())),
            storage_class_name: None,
        }
    }
}

/// What happens to a claim made for the resource when the resource is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays: deleting a resource does not delete a trained model.
    #[default]
    Retain,
    /// It is deleted with the resource.
    Delete,
}

fn default_every_steps() -> i64 {
    500
}

fn default_keep_last() -> i64 {
    2
}
