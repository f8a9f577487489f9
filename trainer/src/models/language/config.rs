//! What a decoder is made of, as the `text_config` of any supported family says it.

use super::rope::Rope;
use crate::error::Result;
use crate::models::config::{Section, limits};
use crate::models::layers::{Activation, NormKind};

/// A decoder: sizes, norms, biases, positions. Families differ only in its values.
#[derive(Debug, Clone)]
pub struct TextConfig {
    pub vocabulary: i64,
    pub hidden: i64,
    pub mlp_width: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub head_size: i64,
    pub activation: Activation,
    pub norm: NormKind,
    pub attention_dropout: f64,
    /// Biases of query, key and value; of the attention's output; of the MLP.
    pub qkv_bias: bool,
    pub output_bias: bool,
    pub mlp_bias: bool,
    /// Norms of each head's queries and keys.
    pub qk_norm: bool,
    /// Norms behind attention and MLP too (Gemma 3).
    pub sandwich: bool,
    /// Scores are multiplied with it; `None` is one over the root of the head size.
    pub attention_scale: Option<f64>,
    /// Embeddings are multiplied with the root of the hidden size (Gemma).
    pub scaled_embedding: bool,
    /// The kinds of attention that layers choose from.
    pub kinds: Vec<AttentionKind>,
    /// For each layer, its index in `kinds`.
    pub layers: Vec<usize>,
}

/// One kind of attention: positions, and how far a row sees.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionKind {
    pub rope: Rope,
    /// Rows that a row sees, itself included; `None` sees all before it.
    pub window: Option<i64>,
}

/// What transformers assumes of a decoder type where its config is silent (checkpoints on the
/// Hub leave out what equals the default of their day).
#[derive(Debug, Clone, Copy)]
pub struct TextDefaults {
    pub hidden: i64,
    pub mlp_width: i64,
    pub layers: i64,
    pub heads: i64,
    /// `None`: as many as heads.
    pub key_value_heads: Option<i64>,
    /// `None`: the hidden size divided by the heads.
    pub head_size: Option<i64>,
    pub vocabulary: i64,
    pub activation: &'static str,
    pub norm_eps: f64,
    pub rope_theta: f64,
    /// Of Mistral, where it is not switched off with `null`.
    pub window: Option<i64>,
}

/// Llama's values, which the other types are written against.
pub const LLAMA: TextDefaults = TextDefaults {
    hidden: 4096,
    mlp_width: 11_008,
    layers: 32,
    heads: 32,
    key_value_heads: None,
    head_size: None,
    vocabulary: 32_000,
    activation: "silu",
    norm_eps: 1e-6,
    rope_theta: 1e4,
    window: None,
};
const MISTRAL: TextDefaults = TextDefaults {
    mlp_width: 14_336,
    key_value_heads: Some(8),
    window: Some(4096),
    ..LLAMA
};
const QWEN2: TextDefaults = TextDefaults {
    mlp_width: 22_016,
    key_value_heads: Some(32),
    vocabulary: 151_936,
    ..LLAMA
};
const QWEN3: TextDefaults = TextDefaults {
    head_size: Some(128),
    ..QWEN2
};
/// Qwen2-VL's and Qwen2.5-VL's text part.
pub const QWEN2_VL: TextDefaults = TextDefaults {
    norm_eps: 1e-5,
    rope_theta: 1e6,
    ..QWEN2
};
/// Qwen3-VL's text part.
pub const QWEN3_VL: TextDefaults = TextDefaults {
    rope_theta: 5e5,
    ..QWEN3
};
const GEMMA: TextDefaults = TextDefaults {
    hidden: 3072,
    mlp_width: 24_576,
    layers: 28,
    heads: 16,
    key_value_heads: Some(16),
    head_size: Some(256),
    vocabulary: 256_000,
    activation: "gelu_pytorch_tanh",
    ..LLAMA
};
/// Gemma 3's text part.
pub const GEMMA3: TextDefaults = TextDefaults {
    hidden: 2304,
    mlp_width: 9216,
    layers: 26,
    heads: 8,
    key_value_heads: Some(4),
    vocabulary: 262_208,
    rope_theta: 1e6,
    ..GEMMA
};

impl TextConfig {
    /// Reads a text section whose `model_type` says which decoder it is (Llama where it is
    /// silent).
    pub fn read(s: Section) -> Result<Self> {
        match s.text_or("model_type", "llama")? {
            "llama" => Self::plain(s, &LLAMA),
            "mistral" => Self::plain(s, &MISTRAL),
            "qwen2" => {
                let mut config = Self::plain(s, &QWEN2)?;
                config.qkv_bias = true;
                no_sliding_window(s)?;
                Ok(config)
            }
            "qwen3" => {
                let mut config = Self::plain(s, &QWEN3)?;
                config.qk_norm = true;
                no_sliding_window(s)?;
                Ok(config)
            }
            "gemma" => Self::gemma(s, &GEMMA),
            other => Err(s.error(
                "model_type",
                &format!("is {other}; supported are llama, mistral, qwen2, qwen3 and gemma"),
            )),
        }
    }

    /// Llama's structure with the values of `s`: one kind of attention, no norms of heads.
    pub fn plain(s: Section, defaults: &TextDefaults) -> Result<Self> {
        let heads = s.integer_up_to_or("num_attention_heads", limits::HEADS, defaults.heads)?;
        let hidden = s.integer_up_to_or("hidden_size", limits::WIDTH, defaults.hidden)?;
        let key_value_heads = defaults.key_value_heads.unwrap_or(heads);
        let key_value_heads =
            s.integer_up_to_or("num_key_value_heads", limits::HEADS, key_value_heads)?;
        let head_size = defaults.head_size.unwrap_or(hidden / heads);
        let head_size = s.integer_up_to_or("head_dim", limits::WIDTH, head_size)?;
        let layers = s.integer_up_to_or("num_hidden_layers", limits::LAYERS, defaults.layers)?;
        let attention_bias = s.flag("attention_bias")?.unwrap_or(false);
        let window = window(s, defaults.window)?;
        let rope = Rope::read(s, head_size, defaults.rope_theta)?;
        let config = Self {
            vocabulary: s.integer_up_to_or(
                "vocab_size",
                limits::VOCABULARY,
                defaults.vocabulary,
            )?,
            hidden,
            mlp_width: s.integer_up_to_or(
                "intermediate_size",
                limits::WIDTH,
                defaults.mlp_width,
            )?,
            heads,
            key_value_heads,
            head_size,
            activation: activation(s, defaults.activation)?,
            norm: NormKind::Rms {
                eps: s.positive_or("rms_norm_eps", 1.0, defaults.norm_eps)?,
            },
            attention_dropout: dropout(s)?,
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            mlp_bias: s.flag("mlp_bias")?.unwrap_or(false),
            qk_norm: false,
            sandwich: false,
            attention_scale: None,
            scaled_embedding: false,
            kinds: vec![AttentionKind { rope, window }],
            layers: (0..layers).map(|_| 0).collect(),
        };
        config.check(s)?;
        Ok(config)
    }

    /// Gemma's: norms that store `weight - 1`, scaled embeddings.
    fn gemma(s: Section, defaults: &TextDefaults) -> Result<Self> {
        let mut config = Self::plain(s, defaults)?;
        config.norm = NormKind::RmsPlusOne {
            eps: s.positive_or("rms_norm_eps", 1.0, defaults.norm_eps)?,
        };
        config.scaled_embedding = true;
        Ok(config)
    }

    /// Gemma 3's: norms on every side, norms of heads, most layers with a window and rotary
    /// frequencies of their own.
    pub fn gemma3(s: Section) -> Result<Self> {
        let mut config = Self::gemma(s, &GEMMA3)?;
        let layers = config.layers.len();
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if s.get(key).is_some() {
                return Err(s.error(key, "is set, which is not supported"));
            }
        }
        if s.flag("use_bidirectional_attention")? == Some(true) {
            return Err(s.error("use_bidirectional_attention", "is true; it must be false"));
        }
        config.sandwich = true;
        config.qk_norm = true;
        let scalar = s.positive_or("query_pre_attn_scalar", 1e9, 256.0)?;
        config.attention_scale = Some(scalar.powf(-0.5));
        let window = s.integer_up_to_or("sliding_window", limits::TOKENS, 4096)?;
        let [full, local] = Rope::gemma3(s, config.head_size)?;
        config.kinds = vec![
            AttentionKind {
                rope: full,
                window: None,
            },
            AttentionKind {
                rope: local,
                window: Some(window),
            },
        ];
        config.layers = gemma3_layers(s, layers)?;
        Ok(config)
    }

    /// Standard deviation-preserving factor of the embedding, if it has one.
    pub fn embedding_scale(&self) -> Option<f64> {
        let root = (self.hidden as f64).sqrt();
        self.scaled_embedding.then_some(root)
    }

    fn check(&self, s: Section) -> Result<()> {
        if self.head_size % 2 != 0 || self.heads * self.head_size > limits::WIDTH {
            let problem = format!(
                "gives heads of {}; the size must be even, and all heads together no wider than {}",
                self.head_size,
                limits::WIDTH
            );
            return Err(s.error("head_dim", &problem));
        }
        if self.heads % self.key_value_heads != 0 {
            return Err(s.error("num_key_value_heads", "must divide num_attention_heads"));
        }
        Ok(())
    }
}

/// Windows that only some layers have, in Qwen's words; no published VLM uses them.
pub fn no_sliding_window(s: Section) -> Result<()> {
    let layers = s.integer_up_to_or("num_hidden_layers", limits::LAYERS, 0)?;
    // `max_window_layers` may be 0, meaning that every layer has a window.
    let full = s
        .get("max_window_layers")
        .and_then(serde_json::Value::as_i64);
    if s.flag("use_sliding_window")? == Some(true) && full.unwrap_or(0) < layers {
        let problem = "is true; only full attention is supported";
        return Err(s.error("use_sliding_window", problem));
    }
    Ok(())
}

/// Mistral's window on all layers.
fn window(s: Section, default: Option<i64>) -> Result<Option<i64>> {
    match default {
        Some(window) if !s.is_null("sliding_window") => s
            .integer_up_to_or("sliding_window", limits::TOKENS, window)
            .map(Some),
        _ => Ok(None),
    }
}

fn activation(s: Section, default: &str) -> Result<Activation> {
    // Gemma's newer key outranks the older one.
    let key = match s.get("hidden_activation") {
        Some(_) => "hidden_activation",
        None => "hidden_act",
    };
    Activation::from_name(s.text_or(key, default)?, key)
}

fn dropout(s: Section) -> Result<f64> {
    let dropout = s.number_or("attention_dropout", 0.0)?;
    if (0.0..1.0).contains(&dropout) {
        return Ok(dropout);
    }
    Err(s.error("attention_dropout", &format!("is {dropout}, not in [0, 1)")))
}

/// 0 for a full layer, 1 for one with a window: as `layer_types` says, else every sixth is full.
fn gemma3_layers(s: Section, layers: usize) -> Result<Vec<usize>> {
    let Some(types) = s.get("layer_types") else {
        let pattern = s.integer_up_to_or("sliding_window_pattern", limits::LAYERS, 6)?;
        let pattern = usize::try_from(pattern).unwrap_or(usize::MAX);
        return Ok((1..=layers)
            .map(|layer| usize::from(layer % pattern != 0))
            .collect());
    };
    let kind = |value: &serde_json::Value| match value.as_str() {
        Some("full_attention") => Some(0),
        Some("sliding_attention") => Some(1),
        _ => None,
    };
    let kinds = types.as_array().and_then(|l| l.iter().map(kind).collect());
    kinds
        .filter(|kinds: &Vec<usize>| kinds.len() == layers)
        .ok_or_else(|| {
            let problem = "must name full_attention or sliding_attention for every layer";
            s.error("layer_types", problem)
        })
}
