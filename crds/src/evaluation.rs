//! `spec.evaluation`: what is measured on the validation data.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// Optimizer steps between two evaluations; absent means once, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub every_steps: Option<i64>,
    /// What is measured; the loss always is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub metrics: Vec<EvaluationMetric>,
    /// Most samples generated for; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_samples: Option<i64>,
    /// Most tokens generated for one sample.
    #[serde(default = "default_max_new_tokens")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_new_tokens: i64,
    /// Stops a run whose validation loss no longer falls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            every_steps: None,
            metrics: Vec::new(),
            max_samples: None,
            max_new_tokens: default_max_new_tokens(),
            early_stopping: None,
        }
    }
}

/// Metrics of greedily generated text against the reference answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvaluationMetric {
    /// Share of answers equal to the reference, white space folded.
    ExactMatch,
    /// Share of answers with the reference's label.
    Accuracy,
    RougeL,
    Bleu,
    Cider,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EarlyStopping {
    /// Evaluations without improvement before the run ends.
    #[schemars(range(min = 1, max = 1000))]
    pub patience: i64,
    /// Least improvement of the loss that counts.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0e6))]
    pub min_delta: f64,
}

fn default_max_new_tokens() -> i64 {
    64
}
