//! Qwen2-VL (`Qwen2VLForConditionalGeneration`).

mod config;
mod prepare;
pub mod preset;
pub mod processor;

use super::builder::UnitBuilder;
use super::config::ConfigJson;
use super::hf::{LM_HEAD, Prefix, QWEN2_VL_LANGUAGE, QWEN2_VL_VISION};
use super::language::{DecoderBlock, DecoderBlockShape, FinalNorm, TokenEmbedding};
use super::options::ModelOptions;
use super::vision::{PatchEmbed, PatchMerger, VisionBlock, VisionBlockShape};
use super::weights::Weights;
use crate::engine::{Assembly, Head, Projection, Tower, Unit};
use crate::error::Result;
use config::{Config, TextConfig, VisionConfig};
use prepare::Prepare;

/// Units, head and side inputs of a checkpoint.
pub fn assemble(
    config: &ConfigJson,
    weights: &Weights,
    options: &ModelOptions,
) -> Result<Assembly> {
    let config = Config::read(config, weights.contains(LM_HEAD))?;
    let vision = QWEN2_VL_VISION.find(weights)?;
    let language = QWEN2_VL_LANGUAGE.find(weights)?;

    let mut units = vision_units(&config.vision, &vision, options);
    let at = |path: &str| UnitBuilder::new(options, &language, Tower::Language, path);
    let text = &config.text;
    let embedding = TokenEmbedding::new(at("embed_tokens"), text.vocabulary, text.hidden);
    let table = embedding.table_name();
    units.push(Box::new(embedding));
    for layer in 0..text.layers {
        let block = DecoderBlock::new(at(&format!("layers.{layer}")), decoder_shape(text));
        units.push(Box::new(block));
    }
    let norm = Box::new(FinalNorm::new(at("norm"), text.hidden, text.norm_eps));
    let projection = if config.tied {
        Projection::Tied(table)
    } else {
        own_head(text, options)
    };
    let prepare = Box::new(Prepare::new(&config)?);
    Ok(Assembly {
        units,
        head: Head { norm, projection },
        prepare,
    })
}

fn vision_units(
    config: &VisionConfig,
    prefix: &Prefix,
    options: &ModelOptions,
) -> Vec<Box<dyn Unit>> {
    let at = |path: &str| UnitBuilder::new(options, prefix, Tower::Vision, path);
    let kernel = config.kernel();
    let patch_embed = PatchEmbed::new(at("patch_embed"), config.width, &kernel, false);
    let mut units: Vec<Box<dyn Unit>> = vec![Box::new(patch_embed)];
    let shape = VisionBlockShape {
        width: config.width,
        heads: config.heads,
        mlp_width: config.mlp_width,
        activation: config.activation,
        norm_eps: config::VISION_NORM_EPS,
        layout: 0,
    };
    for block in 0..config.depth {
        units.push(Box::new(VisionBlock::new(
            at(&format!("blocks.{block}")),
            shape,
        )));
    }
    let merger = UnitBuilder::new(options, prefix, Tower::Projector, "merger");
    let (merge, eps) = (config.merge * config.merge, config::VISION_NORM_EPS);
    units.push(Box::new(PatchMerger::new(
        merger,
        config.width,
        merge,
        config.output,
        eps,
    )));
    units
}

fn decoder_shape(text: &TextConfig) -> DecoderBlockShape {
    DecoderBlockShape {
        hidden: text.hidden,
        heads: text.heads,
        key_value_heads: text.key_value_heads,
        head_size: text.head_size(),
        mlp_width: text.mlp_width,
        activation: text.activation,
        norm_eps: text.norm_eps,
        qkv_bias: true,
        attention_dropout: text.attention_dropout,
        layout: 0,
    }
}

/// The untied output head; PEFT leaves it alone unless told otherwise, and so does LoRA here.
fn own_head(text: &TextConfig, options: &ModelOptions) -> Projection {
    let top = Prefix {
        disk: String::new(),
        module: String::new(),
    };
    let mut builder = UnitBuilder::new(options, &top, Tower::Language, "");
    builder.parameter(LM_HEAD, &[text.vocabulary, text.hidden]);
    builder
        .finish()
        .pop()
        .map_or_else(|| Projection::Tied(String::new()), Projection::Own)
}
