//! Qwen2-VL (`Qwen2VLForConditionalGeneration`).

pub mod config;
pub mod preset;
pub mod processor;

use super::assembled::{Assembled, tied};
use super::builder::UnitBuilder;
use super::config::ConfigJson;
use super::hf::{LANGUAGE_MODEL, Prefix, VISUAL};
use super::language::{Bidirectional, LanguageLayouts, decoder};
use super::layers::NormKind;
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::vision::{
    GridTower, PatchEmbed, PatchMerger, QWEN2_VL_BLOCK, QWEN2_VL_MERGER, VisionBlock,
    VisionBlockShape,
};
use super::weights::Weights;
use crate::engine::{Tower, Unit};
use crate::error::Result;
use config::{VisionConfig, read_text};

/// Fixed in the reference implementation, not in the config.
const VISION_NORM: NormKind = NormKind::Layer { eps: 1e-6 };

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let text = read_text(json)?;
    let vision = VisionConfig::qwen2(json.section("vision_config"), &text)?;
    let tower = GridTower::new(vision.head_size(), vision.rope_theta, vision.merge)?;
    let shape = VisionBlockShape {
        width: vision.width,
        heads: vision.heads,
        mlp_width: vision.mlp_width,
        activation: vision.activation,
        norm: VISION_NORM,
        names: &QWEN2_VL_BLOCK,
        qkv_bias: true,
        qk_norm: None,
    };
    let prefix = VISUAL.find(weights)?;
    let layouts = vec![0; usize::try_from(vision.depth).unwrap_or(0)];
    let mut units = vision_units(&vision, shape, &layouts, &prefix, options);

    let language = LANGUAGE_MODEL.find(weights)?;
    let decoder = decoder(&text, &language, tied(json, weights)?, weights, options);
    units.extend(decoder.units);
    let prepare = Prepare {
        language: LanguageLayouts::new(&text, Bidirectional::No)?,
        vision: Box::new(tower),
    };
    Ok(Assembled::new(units, decoder.head, prepare))
}

/// Patch embedding, one block for each entry of `layouts`, and the merger, as Qwen2-VL and
/// Qwen2.5-VL have them.
pub fn vision_units(
    config: &VisionConfig,
    shape: VisionBlockShape,
    layouts: &[usize],
    prefix: &Prefix,
    options: &ModelOptions,
) -> Vec<Box<dyn Unit>> {
    let at = |path: &str| UnitBuilder::new(options, prefix, Tower::Vision, path);
    let kernel = config.kernel();
    let patch_embed = PatchEmbed::new(at("patch_embed"), config.width, &kernel, false);
    let mut units: Vec<Box<dyn Unit>> = vec![Box::new(patch_embed)];
    for (block, layout) in layouts.iter().enumerate() {
        let block = VisionBlock::new(at(&format!("blocks.{block}")), shape, *layout);
        units.push(Box::new(block));
    }
    let merger = UnitBuilder::new(options, prefix, Tower::Projector, "merger");
    let sizes = [config.width, config.merge * config.merge, config.output];
    let merger = PatchMerger::new(merger, &QWEN2_VL_MERGER, sizes, shape.norm, false);
    units.push(Box::new(merger));
    units
}
