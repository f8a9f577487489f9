//! LLaVA-1.5 (`LlavaForConditionalGeneration`): a CLIP tower, of whose blocks the last is left
//! out, a projector of two layers, any supported decoder.

mod config;
pub mod processor;

use super::assembled::{Assembled, tied};
use super::builder::UnitBuilder;
use super::config::ConfigJson;
use super::hf::{LANGUAGE_MODEL, LLAVA_PROJECTOR, Prefix, VISION_TOWER};
use super::language::{Bidirectional, LanguageLayouts, decoder};
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::projector::TwoLayerProjector;
use super::vision::TileTower;
use super::weights::Weights;
use crate::engine::Tower;
use crate::error::Result;
pub use config::Config;

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let config = Config::read(json)?;
    let prefix = VISION_TOWER.find(weights)?;
    let mut units = config
        .tower
        .units(&prefix, config.feature_layers, false, options);
    let projector = LLAVA_PROJECTOR.find(weights)?;
    let projector = UnitBuilder::new(options, &projector, Tower::Projector, "");
    units.push(Box::new(TwoLayerProjector::new(
        projector,
        config.projector(),
    )));
    let language = LANGUAGE_MODEL.find(weights)?;
    let tied = tied(json, weights)?;
    let decoder = decoder(&config.text, &language, tied, weights, options);
    units.extend(decoder.units);
    let prepare = Prepare {
        language: LanguageLayouts::new(&config.text, Bidirectional::No)?,
        vision: Box::new(TileTower {
            side: config.tower.side(),
            class: config.tower.has_class(),
            features: config.features(),
            table_side: None,
            arrange: None,
        }),
    };
    let assembled = Assembled::new(units, decoder.head, prepare);
    Ok(assembled.leaving(unused(&config, &prefix)))
}

/// Blocks behind the one that features are taken from, and the norm behind the last.
pub fn unused(config: &Config, prefix: &Prefix) -> Vec<String> {
    let disk = &prefix.disk;
    let tower = &config.tower;
    let blocks = config.feature_layers..tower.layers;
    let mut unused: Vec<String> = blocks
        .map(|block| format!("{disk}{}.{block}.", tower.style.layers))
        .collect();
    unused.push(format!("{disk}{}.", tower.style.post_norm));
    // SigLIP's pooling, where a checkpoint has it.
    unused.push(format!("{disk}head."));
    unused
}
