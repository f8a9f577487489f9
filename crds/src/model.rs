//! `spec.model`: which pretrained model is fine-tuned.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The pretrained model, a Hugging Face checkpoint folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.revision) || self.uri.startsWith('hf://')")
    .message("revision is for hf:// models only; remove it or use an hf:// uri"))]
pub struct Model {
    /// Where the checkpoint folder is: `hf://ORG/NAME`, `s3://BUCKET/PREFIX`,
    /// `pvc://CLAIM/PATH` or `file:///PATH` (a path inside the container).
    #[schemars(
        length(min = 8, max = 512),
        regex(pattern = r"^(hf|s3|gs|az|pvc|file)://.+$")
    )]
    pub uri: String,
    /// Branch, tag or commit of an `hf://` model; absent means its default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub revision: Option<String>,
    /// The published model that this one comes from, by its name on the Hub, for example
    /// `Qwen/Qwen2-VL-7B-Instruct`: its sizes are what memory is estimated from. Absent means the
    /// name in an `hf://` uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 128), regex(pattern = r"^[^/]+/[^/]+$"))]
    pub base_model: Option<String>,
    /// Secret with the key `HF_TOKEN`, or the access keys of an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
}

/// A Secret in the namespace of the resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
