//! Idefics3 and SmolVLM (`Idefics3ForConditionalGeneration`, `SmolVLMForConditionalGeneration`):
//! square tiles and the image as a whole, each a SigLIP tower's input; pixel shuffle; Llama.

mod config;
mod connector;
pub mod processor;

use super::assembled::{Assembled, tied};
use super::builder::UnitBuilder;
use super::config::ConfigJson;
use super::hf::{CONNECTOR, TEXT_MODEL, VISION_MODEL};
use super::language::{Bidirectional, LanguageLayouts, decoder};
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::vision::TileTower;
use super::weights::Weights;
use crate::engine::Tower;
use crate::error::Result;
use config::Config;
use connector::Connector;

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let config = Config::read(json)?;
    let (tower, text) = (&config.tower, &config.text);
    // The tower's own size; where tiles are of another, the processor refuses them.
    let side = tower.side();
    let vision = VISION_MODEL.find(weights)?;
    let mut units = tower.units(&vision, tower.layers, true, options);
    let connector = CONNECTOR.find(weights)?;
    let connector = UnitBuilder::new(options, &connector, Tower::Projector, "");
    units.push(Box::new(Connector::new(
        connector,
        tower.width,
        text.hidden,
        side,
        config.scale,
    )));
    let language = TEXT_MODEL.find(weights)?;
    let decoder = decoder(text, &language, tied(json, weights)?, weights, options);
    units.extend(decoder.units);
    let squares = side / config.scale;
    let prepare = Prepare {
        language: LanguageLayouts::new(text, Bidirectional::No)?,
        vision: Box::new(TileTower {
            side,
            class: false,
            features: squares * squares,
            table_side: Some(side),
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
