//! `config.json` of the Qwen-VL families: flat (transformers 4) or nested (4.52 and later, 5).

use crate::error::Result;
use crate::models::config::{ConfigJson, Section, limits};
use crate::models::language::{Axes, QWEN2_VL, TextConfig, no_sliding_window};
use crate::models::layers::Activation;
use crate::models::vision::three_channels;

/// Sizes of a tower that takes images at their own size.
#[derive(Debug, Clone)]
pub struct VisionConfig {
    pub depth: i64,
    pub width: i64,
    pub heads: i64,
    pub mlp_width: i64,
    pub activation: Activation,
    pub patch: i64,
    pub temporal_patch: i64,
    /// Patches merged along each side.
    pub merge: i64,
    /// Width of a projected feature: the language model's hidden size.
    pub output: i64,
    pub rope_theta: f64,
}

/// The text part of Qwen2-VL and Qwen2.5-VL.
pub fn read_text(json: &ConfigJson) -> Result<TextConfig> {
    let s = json.section_or_top("text_config");
    let mut text = TextConfig::plain(s, &QWEN2_VL)?;
    text.qkv_bias = true;
    no_sliding_window(s)?;
    three_axes(&text, s)?;
    Ok(text)
}

/// These decoders turn by time, row and column.
pub fn three_axes(text: &TextConfig, s: Section) -> Result<()> {
    match text.kinds.iter().all(|kind| kind.rope.axes != Axes::One) {
        true => Ok(()),
        false => Err(s.error(
            "rope_parameters.mrope_section",
            "(or rope_scaling.mrope_section) is missing",
        )),
    }
}

impl VisionConfig {
    /// Qwen2-VL's: the width is `embed_dim`, `hidden_size` the language model's.
    pub fn qwen2(s: Section, text: &TextConfig) -> Result<Self> {
        let width = s.integer_up_to("embed_dim", limits::WIDTH)?;
        let ratio = s.positive_or("mlp_ratio", 64.0, 4.0)?;
        // Widths stay far below 2^53.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let mlp_width = (width as f64 * ratio) as i64;
        let output = s.integer_up_to_or("hidden_size", limits::WIDTH, text.hidden)?;
        let sizes = [width, mlp_width, output];
        Self::read(s, "embed_dim", sizes, "quick_gelu", text)
    }

    /// Qwen2.5-VL's and Qwen3-VL's: the width is `hidden_size`.
    pub fn newer(s: Section, activation: &'static str, text: &TextConfig) -> Result<Self> {
        let width = s.integer_up_to("hidden_size", limits::WIDTH)?;
        let mlp_width = s.integer_up_to("intermediate_size", limits::WIDTH)?;
        let output = s.integer_up_to_or("out_hidden_size", limits::WIDTH, text.hidden)?;
        let sizes = [width, mlp_width, output];
        Self::read(s, "hidden_size", sizes, activation, text)
    }

    fn read(
        s: Section,
        width_key: &str,
        [width, mlp_width, output]: [i64; 3],
        activation: &'static str,
        text: &TextConfig,
    ) -> Result<Self> {
        let activation = s.text_or("hidden_act", activation)?;
        let rope = s.part("rope_parameters").unwrap_or(s);
        let config = Self {
            depth: s.integer_up_to("depth", limits::LAYERS)?,
            width,
            heads: s.integer_up_to("num_heads", limits::HEADS)?,
            mlp_width,
            activation: Activation::from_name(activation, "vision_config.hidden_act")?,
            patch: s.square("patch_size", limits::PIXELS, 14)?,
            temporal_patch: s.integer_up_to_or("temporal_patch_size", 256, 2)?,
            merge: s.integer_up_to_or("spatial_merge_size", 256, 2)?,
            output,
            rope_theta: rope.positive_or("rope_theta", 1e12, 1e4)?,
        };
        // Hub configs have both spellings.
        three_channels(s, "in_channels")?;
        three_channels(s, "in_chans")?;
        config.check(s, width_key, text)?;
        Ok(config)
    }

    fn check(&self, s: Section, width_key: &str, text: &TextConfig) -> Result<()> {
        if self.width % self.heads != 0 || (self.width / self.heads) % 4 != 0 {
            return Err(s.error(width_key, "must be num_heads times a multiple of four"));
        }
        if self.width * self.merge * self.merge > limits::WIDTH {
            let problem = format!(
                "is {}, which makes merged features wider than {}",
                self.merge,
                limits::WIDTH
            );
            return Err(s.error("spatial_merge_size", &problem));
        }
        if self.output != text.hidden {
            let problem = format!(
                "makes features of {}, the language model has {}",
                self.output, text.hidden
            );
            let key = match width_key {
                "embed_dim" => "hidden_size",
                _ => "out_hidden_size",
            };
            return Err(s.error(key, &problem));
        }
        Ok(())
    }

    pub fn head_size(&self) -> i64 {
        self.width / self.heads
    }

    /// Shape of the patch embedding's kernel behind the output channels.
    pub fn kernel(&self) -> [i64; 4] {
        [3, self.temporal_patch, self.patch, self.patch]
    }
}
