//! Qwen2-VL's `config.json`: flat (transformers 4) or nested (4.52 and later, 5).

use crate::error::{Error, Result};
use crate::models::config::{ConfigJson, Section};
use crate::models::layers::Activation;

/// Fixed in the reference implementation, not in the config.
pub const VISION_NORM_EPS: f64 = 1e-6;

#[derive(Debug, Clone)]
pub struct Config {
    pub text: TextConfig,
    pub vision: VisionConfig,
    /// Whether the output head is the token embedding.
    pub tied: bool,
}

#[derive(Debug, Clone)]
pub struct TextConfig {
    pub vocabulary: i64,
    pub hidden: i64,
    pub mlp_width: i64,
    pub layers: i64,
    pub heads: i64,
    pub key_value_heads: i64,
    pub activation: Activation,
    pub norm_eps: f64,
    pub attention_dropout: f64,
    pub rope_theta: f64,
    /// Frequencies per position axis; sum to half the head size.
    pub mrope_sections: Vec<i64>,
}

#[derive(Debug, Clone)]
pub struct VisionConfig {
    pub depth: i64,
    pub width: i64,
    pub heads: i64,
    pub mlp_width: i64,
    pub activation: Activation,
    pub channels: i64,
    pub patch: i64,
    pub temporal_patch: i64,
    /// Patches merged along each side.
    pub merge: i64,
    /// Width of a projected feature: the language model's hidden size.
    pub output: i64,
    pub rope_theta: f64,
}

impl Config {
    /// `has_head` says whether the checkpoint holds an output head of its own; it decides where
    /// the config is silent.
    pub fn read(json: &ConfigJson, has_head: bool) -> Result<Self> {
        let text_section = json.section_or_top("text_config");
        let text = TextConfig::read(text_section)?;
        let vision = VisionConfig::read(json.section("vision_config"), &text)?;
        let key = "tie_word_embeddings";
        let said = [
            json.top().flag(key)?,
            json.section("text_config").flag(key)?,
        ];
        let tied = said
            .into_iter()
            .flatten()
            .reduce(|a, b| a || b)
            .unwrap_or(!has_head);
        Ok(Self { text, vision, tied })
    }
}

impl TextConfig {
    fn read(s: Section) -> Result<Self> {
        let heads = s.integer("num_attention_heads")?;
        let config = Self {
            vocabulary: s.integer("vocab_size")?,
            hidden: s.integer("hidden_size")?,
            mlp_width: s.integer("intermediate_size")?,
            layers: s.integer("num_hidden_layers")?,
            heads,
            key_value_heads: s.integer_or("num_key_value_heads", heads)?,
            activation: Activation::from_name(s.text_or("hidden_act", "silu")?, "hidden_act")?,
            norm_eps: s.number_or("rms_norm_eps", 1e-5)?,
            attention_dropout: s.number_or("attention_dropout", 0.0)?,
            rope_theta: rope_number(s, "rope_theta", 1e6)?,
            mrope_sections: mrope_sections(s)?,
        };
        config.check(s)?;
        Ok(config)
    }

    pub fn head_size(&self) -> i64 {
        self.hidden / self.heads
    }

    fn check(&self, s: Section) -> Result<()> {
        if self.hidden % self.heads != 0 || self.head_size() % 2 != 0 {
            return Err(s.error(
                "hidden_size",
                "must be an even multiple of num_attention_heads",
            ));
        }
        if self.heads % self.key_value_heads != 0 {
            return Err(s.error("num_key_value_heads", "must divide num_attention_heads"));
        }
        let half = self.head_size() / 2;
        if self.mrope_sections.iter().sum::<i64>() != half {
            let sections = &self.mrope_sections;
            let problem = format!("is {sections:?}, which must sum to half the head size, {half}");
            return Err(s.error("mrope_section", &problem));
        }
        let slides = s.flag("use_sliding_window")?.unwrap_or(false)
            && s.integer_or("max_window_layers", 0).unwrap_or(0) < self.layers;
        if slides {
            return Err(s.error(
                "use_sliding_window",
                "is true; only full attention is supported",
            ));
        }
        Ok(())
    }
}

impl VisionConfig {
    fn read(s: Section, text: &TextConfig) -> Result<Self> {
        let width = s.integer("embed_dim")?;
        let ratio = s.number_or("mlp_ratio", 4.0)?;
        // Widths stay far below 2^53.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let mlp_width = (width as f64 * ratio) as i64;
        let activation = s.text_or("hidden_act", "quick_gelu")?;
        let channels = s
            .any(&["in_channels", "in_chans"])
            .map_or(Some(3), |v| v.as_i64());
        let config = Self {
            depth: s.integer("depth")?,
            width,
            heads: s.integer("num_heads")?,
            mlp_width,
            activation: Activation::from_name(activation, "vision_config.hidden_act")?,
            channels: channels.ok_or_else(|| s.error("in_channels", "is not an integer"))?,
            patch: s.integer_or("patch_size", 14)?,
            temporal_patch: s.integer_or("temporal_patch_size", 2)?,
            merge: s.integer_or("spatial_merge_size", 2)?,
            output: s.integer_or("hidden_size", text.hidden)?,
            rope_theta: rope_number(s, "rope_theta", 1e4)?,
        };
        config.check(s, text)?;
        Ok(config)
    }

    fn check(&self, s: Section, text: &TextConfig) -> Result<()> {
        if self.width % self.heads != 0 || (self.width / self.heads) % 4 != 0 {
            return Err(s.error("embed_dim", "must be num_heads times a multiple of four"));
        }
        if self.output != text.hidden {
            let problem = format!("is {}, the language model has {}", self.output, text.hidden);
            return Err(s.error("hidden_size", &problem));
        }
        Ok(())
    }

    pub fn head_size(&self) -> i64 {
        self.width / self.heads
    }

    /// Shape of the patch embedding's kernel behind the output channels.
    pub fn kernel(&self) -> [i64; 4] {
        [self.channels, self.temporal_patch, self.patch, self.patch]
    }
}

/// A rope setting: below `rope_parameters` (transformers 5) or beside it (4).
fn rope_number(s: Section, key: &str, default: f64) -> Result<f64> {
    let nested = s
        .get("rope_parameters")
        .and_then(|r| r.get(key))
        .and_then(|v| v.as_f64());
    nested.map_or_else(|| s.number_or(key, default), Ok)
}

fn mrope_sections(s: Section) -> Result<Vec<i64>> {
    let rope = s.any(&["rope_parameters", "rope_scaling"]);
    let rope = rope.ok_or_else(|| s.error("rope_parameters", "(or rope_scaling) is missing"))?;
    let kind = rope
        .get("rope_type")
        .or_else(|| rope.get("type"))
        .and_then(|t| t.as_str());
    if !matches!(kind, None | Some("default" | "mrope")) {
        let problem = format!("is {}; supported is default", kind.unwrap_or_default());
        return Err(s.error("rope_parameters.rope_type", &problem));
    }
    let sections = rope.get("mrope_section").and_then(|v| v.as_array());
    let sections: Option<Vec<i64>> =
        sections.and_then(|list| list.iter().map(|v| v.as_i64().filter(|n| *n > 0)).collect());
    sections
        .filter(|list| !list.is_empty())
        .ok_or_else(|| -> Error {
            s.error(
                "rope_parameters.mrope_section",
                "must be a list of positive integers",
            )
        })
}
