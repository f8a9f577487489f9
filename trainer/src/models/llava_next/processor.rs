//! LLaVA-NeXT's image processor: the whole image as one square, then its tiles in raster order.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;

use super::Config;
use super::any_res::AnyRes;
use crate::error::Result;
use crate::models::config::ConfigJson;
use crate::models::image_config::{self, CLIP_PIXELS, PixelConfig, PixelLimits};
use crate::models::llava::processor::CHAT_TEMPLATE;
use crate::models::pixels::{self, NormaliseTable};
use crate::models::processing::{no_pixel_limits, token};
use crate::processor::{Expansion, ImagePlan, Placeholder, Processor};

/// One run of `<image>` for each image, longer for larger ones.
#[derive(Debug)]
pub struct LlavaNextProcessor {
    pixels: PixelConfig,
    table: NormaliseTable,
    any_res: AnyRes,
    placeholder: Placeholder,
}

/// Opens the processor of a checkpoint folder.
pub fn open(folder: &Path, json: &ConfigJson, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    no_pixel_limits(limits)?;
    let Config { any_res, .. } = Config::read(json)?;
    let images = image_config::read(folder)?;
    let s = images.top();
    let (tile, side) = (any_res.tile, any_res.side);
    if s.get("image_grid_pinpoints").is_some() && AnyRes::read(s, tile, side)? != any_res {
        let problem = "differs from config.json's; take both files from the same model";
        return Err(s.error("image_grid_pinpoints", problem));
    }
    image_config::exactly(s, &["size", "crop_size"], tile)?;
    let pixels = PixelConfig::read(s, &CLIP_PIXELS)?;
    Ok(Arc::new(LlavaNextProcessor {
        table: NormaliseTable::new(&pixels),
        pixels,
        any_res,
        placeholder: token(json, &["image_token_index", "image_token_id"], "<image>")?,
    }))
}

impl LlavaNextProcessor {
    /// The image at its best resolution, centred on black.
    fn at_best_resolution(&self, rgb: &RgbImage) -> Result<RgbImage> {
        let size = (i64::from(rgb.height()), i64::from(rgb.width()));
        let (best_h, best_w) = self.any_res.best(size);
        let (height, width) = AnyRes::fitted(size, (best_h, best_w));
        let resized = pixels::resize(rgb, pixel(width), pixel(height), self.pixels.resample)?;
        let corner = ((best_w - width) / 2, (best_h - height) / 2);
        let canvas = (pixel(best_w), pixel(best_h));
        Ok(pixels::placed(&resized, canvas, corner, [0; 3]))
    }
}

/// A side that was computed from `u32`s and bounded resolutions.
fn pixel(side: i64) -> u32 {
    u32::try_from(side).unwrap_or(1)
}

impl Processor for LlavaNextProcessor {
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan> {
        let size = (i64::from(height), i64::from(width));
        let kept = self.any_res.kept(size);
        let (best_h, best_w) = self.any_res.best(size);
        let side = self.any_res.side;
        Ok(ImagePlan {
            width: pixel(best_w),
            height: pixel(best_h),
            grid_thw: [kept.count(), side, side],
            tokens: usize::try_from(kept.features(side)).unwrap_or(0),
            original_hw: size.into(),
        })
    }

    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor> {
        let tile = pixel(self.any_res.tile);
        let sizes = (tile, tile / pixel(self.any_res.side));
        let mut values = Vec::new();
        let whole = pixels::resize(rgb, tile, tile, self.pixels.resample)?;
        pixels::push_tile(&self.table, &whole, (0, 0), sizes, &mut values);
        let best = self.at_best_resolution(rgb)?;
        for top in (0..best.height()).step_by(tile as usize) {
            for left in (0..best.width()).step_by(tile as usize) {
                pixels::push_tile(&self.table, &best, (left, top), sizes, &mut values);
            }
        }
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
