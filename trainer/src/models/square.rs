//! Processors that make every image one square, and the same text around it (Gemma 3).

use image::RgbImage;
use tch::Tensor;

use super::image_config::PixelConfig;
use super::pixels::{self, NormaliseTable};
use super::vision::TowerConfig;
use crate::error::{Error, Result};
use crate::processor::{Expansion, ImagePlan, Placeholder, Processor};

/// A tile of a fixed size.
#[derive(Debug)]
pub struct SquareTile {
    pixels: PixelConfig,
    table: NormaliseTable,
    /// Sides of the tile and of a patch, pixels.
    side: u32,
    patch: u32,
}

/// One square tile for each image.
#[derive(Debug)]
pub struct SquareProcessor {
    pub tile: SquareTile,
    /// Image tokens of an image.
    pub tokens: usize,
    pub placeholder: Placeholder,
    pub image_token: Placeholder,
    pub expansion: Expansion,
    pub chat_template: &'static str,
}

impl SquareTile {
    pub fn new(tower: &TowerConfig, pixels: PixelConfig) -> Self {
        // Both are bounded where the config is read.
        let pixel = |side: i64| u32::try_from(side).unwrap_or(1);
        Self {
            table: NormaliseTable::new(&pixels),
            pixels,
            side: pixel(tower.image),
            patch: pixel(tower.patch),
        }
    }

    /// `[P, D]` of an image, stretched to the square.
    fn patches(&self, rgb: &RgbImage) -> Result<Tensor> {
        if !self.pixels.do_resize && rgb.dimensions() != (self.side, self.side) {
            return Err(Error::Data(format!(
                "the image is {}x{} pixels, the model takes {side}x{side}, and the processor's \
                 do_resize is false: set it, or resize the image",
                rgb.width(),
                rgb.height(),
                side = self.side
            )));
        }
        let square = pixels::resize(rgb, self.side, self.side, self.pixels.resample)?;
        let mut values = Vec::new();
        let sizes = (self.side, self.patch);
        pixels::push_tile(&self.table, &square, (0, 0), sizes, &mut values);
        let width = i64::from(3 * self.patch * self.patch);
        Ok(Tensor::f_from_slice(&values)?.f_view([-1, width])?)
    }
}

impl Processor for SquareProcessor {
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan> {
        let SquareTile { side, patch, .. } = self.tile;
        let patches = i64::from(side / patch);
        Ok(ImagePlan {
            width: side,
            height: side,
            grid_thw: [1, patches, patches],
            tokens: self.tokens,
            original_hw: [i64::from(height), i64::from(width)],
        })
    }

    fn pixel_values(&self, rgb: &RgbImage, _plan: &ImagePlan) -> Result<Tensor> {
        self.tile.patches(rgb)
    }

    fn placeholder(&self) -> &Placeholder {
        &self.placeholder
    }

    fn image_token(&self) -> &Placeholder {
        &self.image_token
    }

    fn expansion(&self, _plan: &ImagePlan) -> Expansion {
        self.expansion.clone()
    }

    fn chat_template(&self) -> &'static str {
        self.chat_template
    }
}
