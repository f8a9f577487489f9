//! Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`): Qwen2-VL with a tower whose blocks attend
//! within windows, except for a few, and have RMS norms and gated MLPs.

use super::assembled::{Assembled, tied};
use super::config::{ConfigJson, Section, limits};
use super::hf::{LANGUAGE_MODEL, VISUAL};
use super::language::{Bidirectional, LanguageLayouts, decoder};
use super::layers::NormKind;
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::qwen2_vl::config::{VisionConfig, read_text};
use super::qwen2_vl::vision_units;
use super::vision::{GridTower, QWEN2_5_VL_BLOCK, VisionBlockShape};
use super::weights::Weights;
use crate::error::Result;

/// Fixed in the reference implementation, not in the config.
const VISION_NORM: NormKind = NormKind::Rms { eps: 1e-6 };
/// Of the tower's attention layouts.
const WHOLE_IMAGE: usize = 0;
const WINDOWS: usize = 1;

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let text = read_text(json)?;
    let section = json.section("vision_config");
    let vision = VisionConfig::newer(section, "silu", &text)?;
    let tower = GridTower::new(vision.head_size(), vision.rope_theta, vision.merge)?
        .with_windows(window_side(section, &vision)?);
    let shape = VisionBlockShape {
        width: vision.width,
        heads: vision.heads,
        mlp_width: vision.mlp_width,
        activation: vision.activation,
        norm: VISION_NORM,
        names: &QWEN2_5_VL_BLOCK,
        qkv_bias: true,
        qk_norm: None,
    };
    let layouts = layouts(section, vision.depth)?;
    let prefix = VISUAL.find(weights)?;
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

/// Side of a window in merged squares.
fn window_side(s: Section, vision: &VisionConfig) -> Result<i64> {
    let pixels = s.integer_up_to_or("window_size", limits::PIXELS, 112)?;
    let side = pixels / vision.merge / vision.patch;
    if side > 0 {
        return Ok(side);
    }
    let problem = format!("is {pixels} pixels, less than one merged square");
    Err(s.error("window_size", &problem))
}

/// Which layout each block attends in.
fn layouts(s: Section, depth: i64) -> Result<Vec<usize>> {
    let whole = s.integers("fullatt_block_indexes")?;
    let whole = whole.unwrap_or_else(|| vec![7, 15, 23, 31]);
    if let Some(block) = whole.iter().find(|b| !(0..limits::LAYERS).contains(*b)) {
        let problem = format!("names block {block}, which no tower has");
        return Err(s.error("fullatt_block_indexes", &problem));
    }
    let layout = |block: i64| match whole.contains(&block) {
        true => WHOLE_IMAGE,
        false => WINDOWS,
    };
    Ok((0..depth).map(layout).collect())
}

/// What [`assemble`] reads of a config.
#[cfg(test)]
pub fn read(json: &ConfigJson) -> Result<()> {
    let section = json.section("vision_config");
    let vision = VisionConfig::newer(section, "silu", &read_text(json)?)?;
    window_side(section, &vision)?;
    layouts(section, vision.depth).map(|_| ())
}
