//! InternVL's `config.json` in transformers' own layout.

use serde_json::Value;

use crate::error::Result;
use crate::models::config::{ConfigJson, Section, limits};
use crate::models::language::TextConfig;
use crate::models::layers::{Activation, NormKind};
use crate::models::vision::{TowerConfig, TowerDefaults, TowerStyle};

/// What transformers assumes.
const TOWER: TowerDefaults = TowerDefaults {
    width: 1024,
    heads: 16,
    mlp_width: 4096,
    layers: 24,
    patch: 14,
    image: 448,
};

#[derive(Debug, Clone)]
pub struct Config {
    pub text: TextConfig,
    pub tower: TowerConfig,
    /// Patches along the side of the square that becomes one feature.
    pub scale: i64,
    pub activation: Activation,
}

impl Config {
    pub fn read(json: &ConfigJson) -> Result<Self> {
        let top = json.top();
        let tower = read_tower(json.section("vision_config"))?;
        let one = |key: &str, expected: &str, problem: &str| {
            let said = top.get(key).map(Value::to_string);
            match said {
                Some(said) if said != expected => Err(top.error(key, problem)),
                _ => Ok(()),
            }
        };
        one("vision_feature_layer", "-1", "must be -1, the last layer")?;
        let strategy = "must be default, which leaves out the class token";
        one("vision_feature_select_strategy", "\"default\"", strategy)?;
        let key = "projector_hidden_act";
        Ok(Self {
            text: TextConfig::read(json.section("text_config"))?,
            scale: scale(top, &tower)?,
            tower,
            activation: Activation::from_name(top.text_or(key, "gelu")?, key)?,
        })
    }

    /// Features of a tile.
    pub fn features(&self) -> i64 {
        (self.tower.side() / self.scale).pow(2)
    }
}

fn read_tower(s: Section) -> Result<TowerConfig> {
    let mut tower = TowerConfig::read(s, &TowerStyle::INTERN, TOWER)?;
    let eps = tower.norm_eps;
    let norm_type = s.text_or("norm_type", "layer_norm")?;
    tower.norm = match norm_type {
        "layer_norm" => NormKind::Layer { eps },
        "rms_norm" => NormKind::Rms { eps },
        other => {
            let problem = format!("is {other}; supported are layer_norm and rms_norm");
            return Err(s.error("norm_type", &problem));
        }
    };
    tower.qkv_bias = s.flag("attention_bias")?.unwrap_or(false);
    // Fixed in the reference implementation, not in the config.
    let head_norm = NormKind::Rms { eps: 1e-6 };
    let normed = s.flag("use_qk_norm")?.unwrap_or(false);
    tower.qk_norm = normed.then_some(head_norm);
    for (key, supported) in [
        ("use_mask_token", false),
        ("use_mean_pooling", true),
        ("use_absolute_position_embeddings", true),
    ] {
        if s.flag(key)?.unwrap_or(supported) != supported {
            return Err(s.error(key, &format!("must be {supported}")));
        }
    }
    Ok(tower)
}

/// The inverse of `downsample_ratio`.
fn scale(s: Section, tower: &TowerConfig) -> Result<i64> {
    let key = "downsample_ratio";
    let ratio = s.positive_or(key, 1.0, 0.5)?;
    let scale = (1.0 / ratio) as i64;
    let side = tower.side();
    let fits = (1..=256).contains(&scale)
        && side % scale == 0
        && tower.width * scale * scale <= limits::WIDTH;
    match fits {
        true => Ok(scale),
        false => {
            let problem = format!("is {ratio}; its inverse must divide the tower's {side} patches");
            Err(s.error(key, &problem))
        }
    }
}
