//! Idefics3's and SmolVLM's `config.json`.

use crate::error::Result;
use crate::models::config::{ConfigJson, limits};
use crate::models::language::TextConfig;
use crate::models::vision::{TowerConfig, TowerDefaults, TowerStyle};

/// What transformers assumes.
const TOWER: TowerDefaults = TowerDefaults {
    width: 1152,
    heads: 16,
    mlp_width: 3072,
    layers: 12,
    patch: 32,
    image: 224,
};

#[derive(Debug, Clone)]
pub struct Config {
    pub text: TextConfig,
    pub tower: TowerConfig,
    /// Patches along the side of the square that becomes one feature.
    pub scale: i64,
}

impl Config {
    pub fn read(json: &ConfigJson) -> Result<Self> {
        let vision = json.section("vision_config");
        let top = json.top();
        let config = Self {
            text: TextConfig::read(json.section("text_config"))?,
            tower: TowerConfig::read(vision, &TowerStyle::SIGLIP, TOWER)?,
            scale: top.integer_up_to_or("scale_factor", 256, 2)?,
        };
        if config.tower.width * config.scale * config.scale > limits::WIDTH {
            let problem = format!(
                "is {}, which makes features wider than {}",
                config.scale,
                limits::WIDTH
            );
            return Err(top.error("scale_factor", &problem));
        }
        Ok(config)
    }
}
