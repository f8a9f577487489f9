//! `spec.method`: which parameters are trained, and how.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Exactly one of `full`, `lora`, `qlora`, `freeze`, `adapter`, and which towers it touches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.full), has(self.lora), has(self.qlora), has(self.freeze), has(self.adapter)].filter(m, m).size() == 1")
    .message("method takes exactly one of full, lora, qlora, freeze, adapter; remove the others"))]
pub struct Method {
    /// Every parameter of the trained towers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Full>,
    /// Low-rank adapters beside frozen weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Low-rank adapters beside 4-bit weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qlora: Option<Qlora>,
    /// Only the last layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Freeze>,
    /// Bottleneck adapters after each block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// Which towers train. Absent: all of them with `full`; the language model with `lora`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub towers: Option<Towers>,
}

impl Default for Method {
    fn default() -> Self {
        Self {
            full: None,
            lora: Some(Lora::default()),
            qlora: None,
            freeze: None,
            adapter: None,
            towers: None,
        }
    }
}

/// No settings of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Full {}

/// Low-rank adaptation (Hu et al. 2021), with PEFT's names and layout on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lora {
    /// Rank of the update.
    #[serde(default = "default_rank")]
    #[schemars(range(min = 1, max = 1024))]
    pub rank: i64,
    /// Scale numerator: the update is multiplied by alpha / rank (a number, since it is a
    /// hyperparameter and not a quantity).
    #[serde(default = "default_alpha")]
    #[schemars(range(min = 0.0, max = 65536.0))]
    pub alpha: f64,
    /// Dropout on the adapter's input.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: f64,
    /// Module names (their last path components) that get an adapter; absent means every
    /// linear layer of the trained towers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub target_modules: Vec<String>,
    /// Weight-decomposed update (DoRA).
    #[serde(default)]
    pub use_dora: bool,
    /// Scale by alpha / sqrt(rank) (rsLoRA).
    #[serde(default)]
    pub use_rslora: bool,
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: default_rank(),
            alpha: default_alpha(),
            dropout: 0.0,
            target_modules: Vec::new(),
            use_dora: false,
            use_rslora: false,
        }
    }
}

/// LoRA over NF4 weights (Dettmers et al. 2023).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Qlora {
    /// The adapters.
    #[serde(default)]
    pub lora: Lora,
    /// Quantises the quantisation constants too.
    #[serde(default = "default_true")]
    pub double_quantization: bool,
}

/// Trains the last layers of the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// How many of the last language layers train.
    #[schemars(range(min = 1, max = 1024))]
    pub trainable_layers: i64,
}

/// Bottleneck adapters (Houlsby et al. 2019).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adapter {
    /// Width of the bottleneck.
    #[serde(default = "default_bottleneck")]
    #[schemars(range(min = 1, max = 65536))]
    pub bottleneck: i64,
}

/// Which towers train, and at which rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.vision.train || self.projector.train || self.language.train")
    .message("method.towers: nothing would train; set train: true for one of vision, projector, language"))]
pub struct Towers {
    #[serde(default)]
    pub vision: Tower,
    #[serde(default)]
    pub projector: Tower,
    #[serde(default)]
    pub language: Tower,
}

/// One tower's switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.train || !has(self.learningRate)")
    .message("learningRate is for a tower that trains; remove it or set train: true"))]
pub struct Tower {
    /// Whether this tower trains.
    #[serde(default = "default_true")]
    pub train: bool,
    /// Its learning rate; absent means `training.learningRate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub learning_rate: Option<f64>,
}

impl Default for Tower {
    fn default() -> Self {
        Self {
            train: true,
            learning_rate: None,
        }
    }
}

fn default_rank() -> i64 {
    16
}

fn default_alpha() -> f64 {
    32.0
}

fn default_bottleneck() -> i64 {
    64
}

fn default_true() -> bool {
    true
}
