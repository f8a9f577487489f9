//! `spec.dataset`: what is trained on.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::SecretRef;

/// The data: folders with `metadata.jsonl` and the images it names, or files of other formats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.minPixels) || !has(self.maxPixels) || self.minPixels <= self.maxPixels")
    .message("minPixels must not exceed maxPixels"))]
pub struct Dataset {
    /// Sources to train on; several are mixed by weight.
    #[schemars(length(min = 1, max = 32))]
    pub train: Vec<DatasetSource>,
    /// Sources to evaluate on; absent means no evaluation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub validation: Vec<DatasetSource>,
    /// Record format; absent means: detect it from the first record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DatasetFormat>,
    /// The user's words beside each image of an `ImageText` record.
    #[serde(default = "default_prompt")]
    #[schemars(length(max = 4096))]
    pub prompt: String,
    /// System message put before every conversation; absent means the chat template's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub system_prompt: Option<String>,
    /// Fewest pixels an image is resized to; absent means the model's preprocessor decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 784, max = 268_435_456_i64))]
    pub min_pixels: Option<i64>,
    /// Most pixels an image is resized to; absent means the model's preprocessor decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 784, max = 268_435_456_i64))]
    pub max_pixels: Option<i64>,
    /// Most tokens of one sample, image tokens included.
    #[serde(default = "default_max_length")]
    #[schemars(range(min = 16, max = 1_048_576))]
    pub max_length: i64,
    /// What happens to a sample longer than `maxLength`; image tokens are never cut.
    #[serde(default)]
    pub truncation: Truncation,
    /// Concatenates samples up to `maxLength` tokens per row, isolated from each other.
    #[serde(default)]
    pub packing: bool,
    /// Decodes and tokenises everything in a CPU pod before any GPU is booked.
    #[serde(default)]
    pub preflight: bool,
}

/// One source of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetSource {
    /// Folder with `metadata.jsonl`, or a file: `hf://`, `s3://`, `pvc://CLAIM/PATH` or
    /// `file:///PATH`.
    #[schemars(
        length(min = 8, max = 512),
        regex(pattern = r"^(hf|s3|gs|az|pvc|file)://.+$")
    )]
    pub uri: String,
    /// Folder that image paths are resolved against first; absent means the records' folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 8, max = 512),
        regex(pattern = r"^(hf|s3|gs|az|pvc|file)://.+$")
    )]
    pub image_root: Option<String>,
    /// Relative share of this source where several are mixed; absent means by their sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0e6))]
    pub weight: Option<f64>,
    /// Secret with the credentials of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DatasetFormat {
    /// `{"image": PATH, "text": ANSWER}`
    ImageText,
    /// `{"images": [PATH], "messages": [{"role", "content"}]}`
    Messages,
    /// LLaVA's `{"image": PATH, "conversations": [{"from", "value"}]}`
    Conversations,
    /// `{"image": PATH, "question": TEXT, "answer": TEXT}`
    QuestionAnswer,
    /// Parquet with a Hugging Face image column.
    Parquet,
    /// Webdataset tar shards.
    WebDataset,
}

/// What happens to a sample that is longer than `maxLength`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Truncation {
    /// Leave the sample out and count it.
    #[default]
    Drop,
    /// Cut text from the end, never image tokens.
    Text,
    /// End the run with a data error that names the sample.
    Error,
}

fn default_prompt() -> String {
    "Describe this image.".to_owned()
}

fn default_max_length() -> i64 {
    2048
}
