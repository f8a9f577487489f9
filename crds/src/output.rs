//! `spec.output`: the model folder that the run leaves behind.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Where the model is exported to; absent means beside the checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 8, max = 512),
        regex(pattern = r"^(hf|s3|gs|az|pvc|file)://.+$")
    )]
    pub uri: Option<String>,
    /// What is written for adapter methods.
    #[serde(default)]
    pub adapter: AdapterOutput,
    /// Largest weight file, as a quantity of bytes.
    #[serde(default = "default_max_shard_size")]
    pub max_shard_size: Quantity,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            uri: None,
            adapter: AdapterOutput::default(),
            max_shard_size: default_max_shard_size(),
        }
    }
}

/// What is written for adapter methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum AdapterOutput {
    /// A model with the adapters merged, and the adapters alone.
    #[default]
    Both,
    /// Only the model with the adapters merged.
    Merged,
    /// Only the adapters, as PEFT loads them.
    Adapter,
}

fn default_max_shard_size() -> Quantity {
    Quantity("5Gi".to_owned())
}
