//! InternVL in transformers' layout (`InternVLForConditionalGeneration`): square tiles and the
//! image as a whole, a tower with learned scales of its branches, pixel shuffle, Qwen or Llama.

mod config;
pub mod processor;
mod projector;

use super::assembled::{Assembled, tied};
use super::builder::UnitBuilder;
use super::config::ConfigJson;
use super::hf::{INTERN_PROJECTOR, INTERN_TOWER, LANGUAGE_MODEL};
use super::language::{Bidirectional, LanguageLayouts, decoder};
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::vision::TileTower;
use super::weights::Weights;
use crate::engine::Tower;
use crate::error::Result;
use config::Config;
use projector::ShuffleProjector;

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let config = Config::read(json)?;
    let (tower, text) = (&config.tower, &config.text);
    let prefix = INTERN_TOWER.find(weights)?;
    let mut units = tower.units(&prefix, tower.layers, false, options);
    let projector = INTERN_PROJECTOR.find(weights)?;
    let projector = UnitBuilder::new(options, &projector, Tower::Projector, "");
    units.push(Box::new(ShuffleProjector::new(
        projector,
        [tower.width, text.hidden],
        [tower.side(), config.scale],
        config.activation,
    )));
    let language = LANGUAGE_MODEL.find(weights)?;
    let decoder = decoder(text, &language, tied(json, weights)?, weights, options);
    units.extend(decoder.units);
    let prepare = Prepare {
        language: LanguageLayouts::new(text, Bidirectional::No)?,
        vision: Box::new(TileTower {
            side: tower.side(),
            class: true,
            features: config.features(),
            table_side: None,
            arrange: None,
        }),
    };
    Ok(Assembled::new(units, decoder.head, prepare))
}

/// What [`assemble`] reads of a config.
#[cfg(test)]
pub fn read(json: &ConfigJson) -> Result<()> {
    Config::read(json).map(|_| ())
}
