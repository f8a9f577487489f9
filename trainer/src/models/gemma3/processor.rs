//! Gemma 3's image processor: one square for each image.

use std::path::Path;
use std::sync::Arc;

use super::Config;
use crate::error::Result;
use crate::models::config::ConfigJson;
use crate::models::image_config::{self, HALF_PIXELS, PixelConfig, PixelLimits, Resample};
use crate::models::processing::{no_pixel_limits, token};
use crate::models::square::{SquareProcessor, SquareTile};
use crate::processor::{Expansion, Processor};

/// The chat template of the published checkpoints.
const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");
const BEGIN: &str = "<start_of_image>";
const END: &str = "<end_of_image>";
const IMAGE: &str = "<image_soft_token>";

/// Opens the processor of a checkpoint folder.
pub fn open(folder: &Path, json: &ConfigJson, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    no_pixel_limits(limits)?;
    let config = Config::read(json)?;
    let images = image_config::read(folder)?;
    let s = images.top();
    if s.flag("do_pan_and_scan")? == Some(true) {
        return Err(s.error("do_pan_and_scan", "is true, which is not supported"));
    }
    image_config::exactly(s, &["size"], config.tower.image)?;
    let defaults = PixelConfig {
        resample: Resample::Bilinear,
        ..HALF_PIXELS
    };
    let tile = SquareTile::new(&config.tower, PixelConfig::read(s, &defaults)?);
    let tokens = usize::try_from(config.tokens()).unwrap_or(0);
    Ok(Arc::new(SquareProcessor {
        tile,
        tokens,
        placeholder: token(json, &["boi_token_index", "boi_token_id"], BEGIN)?,
        image_token: token(json, &["image_token_index", "image_token_id"], IMAGE)?,
        expansion: Expansion {
            text: format!("\n\n{BEGIN}{IMAGE}{END}\n\n"),
            runs: vec![tokens],
        },
        chat_template: CHAT_TEMPLATE,
    }))
}
