//! LLaVA's `config.json`.

use crate::error::Result;
use crate::models::config::{ConfigJson, Section};
use crate::models::language::TextConfig;
use crate::models::layers::Activation;
use crate::models::projector::ProjectorShape;
use crate::models::vision::{CLIP_DEFAULTS, SIGLIP_DEFAULTS, TowerConfig, TowerStyle};

#[derive(Debug, Clone)]
pub struct Config {
    pub text: TextConfig,
    pub tower: TowerConfig,
    /// Blocks that features go through; the tower may have more.
    pub feature_layers: i64,
    pub keeps_class: bool,
    pub activation: Activation,
    pub projector_bias: bool,
}

impl Config {
    pub fn read(json: &ConfigJson) -> Result<Self> {
        let top = json.top();
        let tower = read_tower(json.section("vision_config"))?;
        let strategy = top.text_or("vision_feature_select_strategy", "default")?;
        let keeps_class = match strategy {
            "default" => false,
            "full" => true,
            other => {
                let problem = format!("is {other}; supported are default and full");
                return Err(top.error("vision_feature_select_strategy", &problem));
            }
        };
        let key = "projector_hidden_act";
        Ok(Self {
            text: TextConfig::read(json.section("text_config"))?,
            feature_layers: feature_layers(top, tower.layers)?,
            // Without a class token the first patch is left out in its place, as transformers does.
            keeps_class,
            activation: Activation::from_name(top.text_or(key, "gelu")?, key)?,
            projector_bias: top.flag("multimodal_projector_bias")?.unwrap_or(true),
            tower,
        })
    }

    /// Rows that the tower gives for a tile.
    pub fn rows(&self) -> i64 {
        self.tower.side() * self.tower.side() + i64::from(self.tower.has_class())
    }

    /// Rows that the projector leaves out of each tile.
    pub fn skipped(&self) -> i64 {
        i64::from(!self.keeps_class)
    }

    /// Features of a tile.
    pub fn features(&self) -> i64 {
        self.rows() - self.skipped()
    }

    pub fn projector(&self) -> ProjectorShape {
        ProjectorShape {
            width: self.tower.width,
            hidden: self.text.hidden,
            bias: self.projector_bias,
            activation: self.activation,
            rows: self.rows(),
            skipped: self.skipped(),
        }
    }
}

fn read_tower(s: Section) -> Result<TowerConfig> {
    match s.text_or("model_type", "clip_vision_model")? {
        "clip_vision_model" => TowerConfig::read(s, &TowerStyle::CLIP, CLIP_DEFAULTS),
        "siglip_vision_model" => TowerConfig::read(s, &TowerStyle::SIGLIP, SIGLIP_DEFAULTS),
        other => {
            let problem =
                format!("is {other}; supported are clip_vision_model and siglip_vision_model");
            Err(s.error("model_type", &problem))
        }
    }
}

/// Number of blocks behind which features are taken: `-1` is the last one's output.
fn feature_layers(s: Section, layers: i64) -> Result<i64> {
    let key = "vision_feature_layer";
    let index = match s.integers(key)?.as_deref() {
        None => -2,
        Some([index]) => *index,
        Some(_) => return Err(s.error(key, "names several layers; one is supported")),
    };
    let blocks = if index < 0 { layers + 1 + index } else { index };
    if (0..=layers).contains(&blocks) {
        return Ok(blocks);
    }
    Err(s.error(key, &format!("is {index}; the tower has {layers} layers")))
}
