//! Gemma 3 (`Gemma3ForConditionalGeneration`): a SigLIP tower whose patches are pooled, a decoder
//! most of whose layers see a window, images that see themselves in both directions.

pub mod processor;
mod projector;

use super::assembled::{Assembled, tied_at_top};
use super::builder::UnitBuilder;
use super::config::{ConfigJson, limits};
use super::hf::{GEMMA3_PROJECTOR, LANGUAGE_MODEL, VISION_TOWER};
use super::language::{Bidirectional, LanguageLayouts, TextConfig, decoder};
use super::layers::NormKind;
use super::options::ModelOptions;
use super::prepare::Prepare;
use super::vision::{SIGLIP_DEFAULTS, TileTower, TowerConfig, TowerStyle};
use super::weights::Weights;
use crate::engine::Tower;
use crate::error::Result;
use projector::{PoolingProjector, PoolingShape};

/// What units and processor are made from.
struct Config {
    text: TextConfig,
    tower: TowerConfig,
    /// Features along an image's side.
    squares: i64,
}

impl Config {
    fn read(json: &ConfigJson) -> Result<Self> {
        let text = TextConfig::gemma3(json.section("text_config"))?;
        let vision = json.section("vision_config");
        let tower = TowerConfig::read(vision, &TowerStyle::SIGLIP, SIGLIP_DEFAULTS)?;
        let top = json.top();
        let key = "mm_tokens_per_image";
        let tokens = top.integer_up_to_or(key, limits::TOKENS, 256)?;
        let squares = tokens.isqrt();
        if squares * squares != tokens || tower.side() % squares != 0 {
            let problem = format!(
                "is {tokens}; it must be a square whose side divides the tower's {} patches",
                tower.side()
            );
            return Err(top.error(key, &problem));
        }
        Ok(Self {
            text,
            tower,
            squares,
        })
    }

    fn tokens(&self) -> i64 {
        self.squares * self.squares
    }
}

/// Units, head and side inputs of a checkpoint.
pub fn assemble(json: &ConfigJson, weights: &Weights, options: &ModelOptions) -> Result<Assembled> {
    let config = Config::read(json)?;
    let (tower, text) = (&config.tower, &config.text);
    let prefix = VISION_TOWER.find(weights)?;
    let mut units = tower.units(&prefix, tower.layers, true, options);
    let projector = GEMMA3_PROJECTOR.find(weights)?;
    let projector = UnitBuilder::new(options, &projector, Tower::Projector, "");
    let shape = PoolingShape {
        width: tower.width,
        hidden: text.hidden,
        squares: config.squares,
        square: tower.side() / config.squares,
        norm: NormKind::RmsPlusOne {
            eps: tower.norm_eps,
        },
    };
    units.push(Box::new(PoolingProjector::new(projector, shape)));
    let language = LANGUAGE_MODEL.find(weights)?;
    let tied = tied_at_top(json, weights)?;
    let decoder = decoder(text, &language, tied, weights, options);
    units.extend(decoder.units);
    let prepare = Prepare {
        language: LanguageLayouts::new(text, Bidirectional::Images)?,
        vision: Box::new(TileTower {
            side: tower.side(),
            class: false,
            features: config.tokens(),
            table_side: None,
            arrange: None,
        }),
    };
    let assembled = Assembled::new(units, decoder.head, prepare);
    Ok(assembled.leaving(vec![format!("{}head.", prefix.disk)]))
}

/// What [`assemble`] reads of a config.
#[cfg(test)]
pub fn read(json: &ConfigJson) -> Result<()> {
    Config::read(json).map(|_| ())
}
