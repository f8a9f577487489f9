//! Qwen3-VL (`Qwen3VLForConditionalGeneration`): learned positions beside rotary ones in the
//! tower, whose inner states too reach the first decoder blocks (DeepStack); rotary axes by turns.

use super::assembled::{Assembled, tied};
use super::builder::UnitBuilder;
use super::config::{ConfigJson, Section, limits};
use super::hf::{LANGUAGE_MODEL, Prefix, VISUAL};
use super::language::{
    Bidirectional, DeepStackAdd, LanguageLayouts, QWEN3_VL, TextConfig, decoder,
};
use super::layers::NormKind;
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::qwen2_vl::config::{VisionConfig, three_axes};
use super::vision::{
    EmbeddingNames, EmbeddingShape, GridTower, MergerNames, PatchEmbeddings, PatchMerger,
    QWEN3_VL_BLOCK, VisionBlock, VisionBlockShape,
};
use super::weights::Weights;
use crate::engine::{Stream, Tower, Unit};
use crate::error::Result;

/// The chat template of the published checkpoints, without tools and video.
pub const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// Fixed in the reference implementation, not in the config.
const VISION_NORM: NormKind = NormKind::Layer { eps: 1e-6 };
const EMBEDDINGS: EmbeddingNames = EmbeddingNames {
    patch: "patch_embed.proj",
    class: None,
    positions: "pos_embed.weight",
    norm: None,
    batched: false,
};
const MERGER: MergerNames = MergerNames {
    norm: "norm",
    up: "linear_fc1",
    down: "linear_fc2",
};

/// The tower beyond what the Qwen-VL families share.
struct Tower3 {
    config: VisionConfig,
    /// Side of the table of learned positions.
    table_side: i64,
    /// Blocks whose outputs go to the decoder's first blocks, in that order.
    deepstack: Vec<i64>,
}

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let text = read_text(json.section("text_config"))?;
    let tower = Tower3::read(json.section("vision_config"), &text)?;
    let prefix = VISUAL.find(weights)?;
    let mut units = tower.units(&prefix, options);

    let language = LANGUAGE_MODEL.find(weights)?;
    let decoder = decoder(&text, &language, tied(json, weights)?, weights, options);
    for (index, unit) in decoder.units.into_iter().enumerate() {
        units.push(unit);
        // The first unit is the embedding.
        if (1..=tower.deepstack.len()).contains(&index) {
            units.push(Box::new(DeepStackAdd::new(index - 1)));
        }
    }
    let vision = &tower.config;
    let grid = GridTower::new(vision.head_size(), vision.rope_theta, vision.merge)?;
    let prepare = Prepare {
        language: LanguageLayouts::new(&text, Bidirectional::No)?,
        vision: Box::new(grid.with_table(tower.table_side)),
    };
    Ok(Assembled::new(units, decoder.head, prepare))
}

fn read_text(s: Section) -> Result<TextConfig> {
    let mut text = TextConfig::plain(s, &QWEN3_VL)?;
    text.qk_norm = true;
    three_axes(&text, s)?;
    for kind in &mut text.kinds {
        kind.rope = kind.rope.clone().interleaved();
    }
    Ok(text)
}

impl Tower3 {
    fn read(s: Section, text: &TextConfig) -> Result<Self> {
        let config = VisionConfig::newer(s, "gelu_pytorch_tanh", text)?;
        let positions = s.integer_up_to_or("num_position_embeddings", limits::WIDTH, 2304)?;
        let table_side = positions.isqrt();
        if table_side * table_side != positions {
            let problem = format!("is {positions}, not a square");
            return Err(s.error("num_position_embeddings", &problem));
        }
        let key = "deepstack_visual_indexes";
        let deepstack = s.integers(key)?.unwrap_or_else(|| vec![8, 16, 24]);
        let known = deepstack.iter().all(|b| (0..config.depth).contains(b));
        if !known || deepstack.len() > text.layers.len() || !deepstack.is_sorted() {
            let problem = format!(
                "is {deepstack:?}; it must name blocks of the tower in order, no more than the \
                 decoder has"
            );
            return Err(s.error(key, &problem));
        }
        Ok(Self {
            config,
            table_side,
            deepstack,
        })
    }

    /// Embeddings, blocks with a merger behind each that goes to the decoder, the last merger.
    fn units(&self, prefix: &Prefix, options: &ModelOptions) -> Vec<Box<dyn Unit>> {
        let vision = &self.config;
        let at = |path: &str| UnitBuilder::new(options, prefix, Tower::Vision, path);
        let shape = EmbeddingShape {
            width: vision.width,
            kernel: &vision.kernel(),
            positions: self.table_side * self.table_side,
            bias: true,
            norm: VISION_NORM,
        };
        let embeddings = PatchEmbeddings::new(at(""), &EMBEDDINGS, shape);
        let mut units: Vec<Box<dyn Unit>> = vec![Box::new(embeddings)];
        let block = VisionBlockShape {
            width: vision.width,
            heads: vision.heads,
            mlp_width: vision.mlp_width,
            activation: vision.activation,
            norm: VISION_NORM,
            names: &QWEN3_VL_BLOCK,
            qkv_bias: true,
            qk_norm: None,
        };
        for index in 0..vision.depth {
            let unit = VisionBlock::new(at(&format!("blocks.{index}")), block, 0);
            units.push(Box::new(unit));
            if let Some(nth) = self.deepstack.iter().position(|block| *block == index) {
                units.push(Box::new(self.merger(nth.into(), prefix, options)));
            }
        }
        units.push(Box::new(self.merger(None, prefix, options)));
        units
    }

    /// The last merger, or that of the `nth` inner state.
    fn merger(&self, nth: Option<usize>, prefix: &Prefix, options: &ModelOptions) -> PatchMerger {
        let path = nth.map_or("merger".to_owned(), |n| {
            format!("deepstack_merger_list.{n}")
        });
        let builder = UnitBuilder::new(options, prefix, Tower::Projector, &path);
        let VisionConfig {
            width,
            merge,
            output,
            ..
        } = self.config;
        let merger = PatchMerger::new(
            builder,
            &MERGER,
            [width, merge * merge, output],
            VISION_NORM,
            nth.is_some(),
        );
        match nth {
            Some(n) => merger.into_stream(Stream::DeepStack(n)),
            None => merger,
        }
    }
}

/// What [`assemble`] reads of a config.
#[cfg(test)]
pub fn read(json: &ConfigJson) -> Result<()> {
    let text = read_text(json.section("text_config"))?;
    Tower3::read(json.section("vision_config"), &text).map(|_| ())
}
