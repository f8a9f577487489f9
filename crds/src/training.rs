//! `spec.precision` and `spec.training`: the optimisation.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Number formats of weights, gradients and optimizer state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Precision {
    /// Everything in float32: 16 bytes a trained parameter.
    Float32,
    /// bfloat16 compute over float32 master weights and states.
    BFloat16Mixed,
    /// Everything in bfloat16, optimizer states included: 8 bytes a trained parameter.
    BFloat16,
    /// float16 compute with dynamic loss scaling over float32 master weights and states.
    Float16Mixed,
}

/// The optimisation. Hyperparameters are numbers, not quantities: `2e-5` has no unit and no
/// suffix, and every ML configuration writes it so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.warmupSteps) || !has(self.warmupRatio)")
        .message("warmupSteps and warmupRatio exclude each other; remove one"),
    validation = Rule::new(
        "!has(self.microBatchSize) || self.globalBatchSize % self.microBatchSize == 0")
        .message("globalBatchSize must be a multiple of microBatchSize"),
)]
pub struct Training {
    /// Passes over the training data; may be a fraction. Ignored where `maxSteps` is given.
    #[serde(default = "default_epochs")]
    #[schemars(range(min = 0.001, max = 10000.0))]
    pub epochs: f64,
    /// Optimizer steps; absent means: as many as `epochs` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_steps: Option<i64>,
    /// Samples per optimizer step, over all ranks and accumulation steps.
    #[serde(default = "default_global_batch_size")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub global_batch_size: i64,
    /// Samples per forward pass on one rank; absent means: choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub micro_batch_size: Option<i64>,
    /// Peak learning rate.
    #[serde(default = "default_learning_rate")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub learning_rate: f64,
    /// Shape of the learning rate after warm-up.
    #[serde(default)]
    pub lr_scheduler: LrScheduler,
    /// Steps of linear warm-up from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000_000))]
    pub warmup_steps: Option<i64>,
    /// Warm-up as a share of all steps; absent, with `warmupSteps` absent too, means 0.03.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: Option<f64>,
    /// Decoupled weight decay; norms and biases are never decayed.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: f64,
    #[serde(default = "default_beta1")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub adam_beta1: f64,
    #[serde(default = "default_beta2")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    pub adam_beta2: f64,
    #[serde(default = "default_epsilon")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub adam_epsilon: f64,
    /// Gradients are scaled down to this global norm; 0 means never.
    #[serde(default = "default_max_grad_norm")]
    #[schemars(range(min = 0.0, max = 1.0e6))]
    pub max_grad_norm: f64,
    /// Seed of data order, dropout and new parameters.
    #[serde(default = "default_seed")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub seed: i64,
    /// Recomputes activations in the backward pass; absent means: choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_checkpointing: Option<bool>,
    /// Supervised positions whose logits exist at one time; absent means: choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_048_576))]
    pub loss_chunk: Option<i64>,
    /// Steps between two log lines.
    #[serde(default = "default_log_every_steps")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub log_every_steps: i64,
    /// Steps with a non-finite loss or gradient that are skipped before the run is stopped.
    #[serde(default = "default_max_non_finite_steps")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_non_finite_steps: i64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: default_epochs(),
            max_steps: None,
            global_batch_size: default_global_batch_size(),
            micro_batch_size: None,
            learning_rate: default_learning_rate(),
            lr_scheduler: LrScheduler::default(),
            warmup_steps: None,
            warmup_ratio: None,
            weight_decay: 0.0,
            adam_beta1: default_beta1(),
            adam_beta2: default_beta2(),
            adam_epsilon: default_epsilon(),
            max_grad_norm: default_max_grad_norm(),
            seed: default_seed(),
            gradient_checkpointing: None,
            loss_chunk: None,
            log_every_steps: default_log_every_steps(),
            max_non_finite_steps: default_max_non_finite_steps(),
        }
    }
}

/// Shape of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LrScheduler {
    /// Half a cosine down to 0.
    #[default]
    Cosine,
    /// A straight line down to 0.
    Linear,
    Constant,
}

fn default_epochs() -> f64 {
    1.0
}

fn default_global_batch_size() -> i64 {
    16
}

fn default_learning_rate() -> f64 {
    2e-5
}

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.999
}

fn default_epsilon() -> f64 {
    1e-8
}

fn default_max_grad_norm() -> f64 {
    1.0
}

fn default_seed() -> i64 {
    42
}

fn default_log_every_steps() -> i64 {
    10
}

fn default_max_non_finite_steps() -> i64 {
    10
}
