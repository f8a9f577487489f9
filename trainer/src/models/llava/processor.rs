//! LLaVA-1.5's image processor: one square tile, resized by the shorter side and cropped.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;

use super::Config;
use crate::error::{Error, Result};
use crate::models::config::{ConfigJson, Section};
use crate::models::image_config::{self, CLIP_PIXELS, PixelConfig, PixelLimits, Size};
use crate::models::pixels::{self, NormaliseTable};
use crate::models::processing::{no_pixel_limits, token};
use crate::processor::{Expansion, ImagePlan, Placeholder, Processor};

/// Vicuna's turns, as the published checkpoints have them.
pub const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// One run of `<image>` for each image, all of the same length.
#[derive(Debug)]
pub struct LlavaProcessor {
    tile: TileConfig,
    table: NormaliseTable,
    /// Sides of a tile and a patch, pixels.
    side: u32,
    patch: u32,
    tokens: usize,
    placeholder: Placeholder,
}

/// How an image becomes one tile.
#[derive(Debug, Clone, PartialEq)]
pub struct TileConfig {
    pub pixels: PixelConfig,
    pub size: Size,
    /// Width and height of the middle that is kept.
    pub crop: Option<(u32, u32)>,
    /// Whether the shorter side is filled up with the mean colour first.
    pub pad: bool,
}

/// Opens the processor of a checkpoint folder.
pub fn open(folder: &Path, json: &ConfigJson, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    no_pixel_limits(limits)?;
    let config = Config::read(json)?;
    let images = image_config::read(folder)?;
    let tile = TileConfig::read(images.top())?;
    let side = config.tower.image;
    tile.check(images.top(), side)?;
    Ok(Arc::new(LlavaProcessor {
        table: NormaliseTable::new(&tile.pixels),
        tile,
        side: u32::try_from(side).unwrap_or(0),
        patch: u32::try_from(config.tower.patch).unwrap_or(1),
        tokens: usize::try_from(config.features()).unwrap_or(0),
        placeholder: token(json, &["image_token_index", "image_token_id"], "<image>")?,
    }))
}

impl TileConfig {
    pub fn read(s: Section) -> Result<Self> {
        let crop = match Size::read(s, "crop_size", false)? {
            Some(Size::Exact { height, width }) => (width, height),
            Some(Size::ShortestEdge(_)) => {
                return Err(s.error("crop_size", "must hold height and width"));
            }
            None => (224, 224),
        };
        Ok(Self {
            pixels: PixelConfig::read(s, &CLIP_PIXELS)?,
            size: Size::read(s, "size", true)?.unwrap_or(Size::ShortestEdge(224)),
            crop: s.flag("do_center_crop")?.unwrap_or(true).then_some(crop),
            pad: s.flag("do_pad")?.unwrap_or(false),
        })
    }

    /// What comes out must be what the tower takes.
    fn check(&self, s: Section, side: i64) -> Result<()> {
        let (key, made) = match (self.crop, self.size) {
            (Some((width, height)), _) => ("crop_size", Some([width, height])),
            (None, Size::Exact { height, width }) => ("size", Some([width, height])),
            // Cropping is off: only squares come out square.
            (None, Size::ShortestEdge(edge)) if self.pad => ("size", Some([edge, edge])),
            (None, Size::ShortestEdge(_)) => ("do_center_crop", None),
        };
        if made.is_some_and(|sides| sides.iter().all(|made| i64::from(*made) == side)) {
            return Ok(());
        }
        let problem = format!("does not make squares of {side} pixels, which the tower takes");
        Err(s.error(key, &problem))
    }

    /// The tile of an image.
    pub fn apply(&self, rgb: &RgbImage) -> Result<RgbImage> {
        let padded = match self.pad && rgb.width() != rgb.height() {
            true => Some(self.squared(rgb)),
            false => None,
        };
        let rgb = padded.as_ref().unwrap_or(rgb);
        let (width, height) = match self.size {
            _ if !self.pixels.do_resize => rgb.dimensions(),
            Size::Exact { height, width } => (width, height),
            Size::ShortestEdge(edge) => pixels::shortest_edge(rgb.width(), rgb.height(), edge),
        };
        let resized = pixels::resize(rgb, width, height, self.pixels.resample)?;
        Ok(match self.crop {
            Some((width, height)) => pixels::centre_crop(&resized, width, height),
            None => resized,
        })
    }

    fn squared(&self, rgb: &RgbImage) -> RgbImage {
        let side = rgb.width().max(rgb.height());
        let (x, y) = ((side - rgb.width()) / 2, (side - rgb.height()) / 2);
        let colour = self.pixels.image_mean.map(|mean| (mean * 255.0) as u8);
        pixels::placed(rgb, (side, side), (i64::from(x), i64::from(y)), colour)
    }
}

impl Processor for LlavaProcessor {
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan> {
        let patches = i64::from(self.side / self.patch);
        Ok(ImagePlan {
            width: self.side,
            height: self.side,
            grid_thw: [1, patches, patches],
            tokens: self.tokens,
            original_hw: [i64::from(height), i64::from(width)],
        })
    }

    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor> {
        let tile = self.tile.apply(rgb)?;
        if tile.dimensions() != (self.side, self.side) {
            let (width, height) = tile.dimensions();
            return Err(Error::Data(format!(
                "the image becomes {width}x{height} pixels, the model takes {0}x{0}: set \
                 do_resize in preprocessor_config.json, or make the image a square of that size",
                self.side
            )));
        }
        let mut values = Vec::new();
        let sizes = (self.side, self.patch);
        pixels::push_tile(&self.table, &tile, (0, 0), sizes, &mut values);
        let rows = plan.grid_thw.iter().product::<i64>();
        Ok(Tensor::f_from_slice(&values)?.f_view([rows, -1])?)
    }

    fn placeholder(&self) -> &Placeholder {
        &self.placeholder
    }

    fn image_token(&self) -> &Placeholder {
        &self.placeholder
    }

    fn expansion(&self, plan: &ImagePlan) -> Expansion {
        Expansion {
            text: self.placeholder.text.clone(),
            runs: vec![plan.tokens],
        }
    }

    fn chat_template(&self) -> &'static str {
        CHAT_TEMPLATE
    }
}
