//! InternVL's image processor: tiles in the arrangement whose shape is closest to the image's, in
//! raster order, then the whole image as one more.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;

use super::config::Config;
use crate::error::Result;
use crate::models::config::{ConfigJson, Section};
use crate::models::image_config::{self, CLIP_PIXELS, PixelConfig, PixelLimits};
use crate::models::pixels::{self, NormaliseTable};
use crate::models::processing::{no_pixel_limits, token};
use crate::processor::{Expansion, ImagePlan, Placeholder, Processor};

/// The chat template of the published checkpoints, without the video branch.
const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");
const BEGIN: &str = "<img>";
const END: &str = "</img>";

/// One run of `<IMG_CONTEXT>` for each image, longer for images of more tiles.
#[derive(Debug)]
pub struct InternVlProcessor {
    pixels: PixelConfig,
    table: NormaliseTable,
    /// Sides of a tile and a patch, pixels.
    side: u32,
    patch: u32,
    /// Image tokens of a tile.
    tokens: usize,
    /// Fewest and most tiles, the whole image not counted.
    tiles: (u32, u32),
    placeholder: Placeholder,
}

/// Opens the processor of a checkpoint folder.
pub fn open(folder: &Path, json: &ConfigJson, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    no_pixel_limits(limits)?;
    let config = Config::read(json)?;
    let images = image_config::read(folder)?;
    let s = images.top();
    image_config::exactly(s, &["size"], config.tower.image)?;
    let pixels = PixelConfig::read(s, &CLIP_PIXELS)?;
    // Both are bounded where the config is read.
    let pixel = |side: i64| u32::try_from(side).unwrap_or(1);
    Ok(Arc::new(InternVlProcessor {
        table: NormaliseTable::new(&pixels),
        pixels,
        side: pixel(config.tower.image),
        patch: pixel(config.tower.patch),
        tokens: usize::try_from(config.features()).unwrap_or(0),
        tiles: tile_limits(s)?,
        placeholder: token(json, &["image_token_id"], "<IMG_CONTEXT>")?,
    }))
}

fn tile_limits(s: Section) -> Result<(u32, u32)> {
    let least = s.integer_up_to_or("min_patches", 256, 1)?;
    let most = s.integer_up_to_or("max_patches", 256, 12)?;
    if least > most {
        let problem = format!("is {least}, more than max_patches, {most}");
        return Err(s.error("min_patches", &problem));
    }
    Ok((least as u32, most as u32))
}

/// Columns and rows of tiles: the arrangement closest in shape; of equally close ones the larger,
/// unless it has more than twice the image's area.
fn arrangement((width, height): (u32, u32), side: u32, (least, most): (u32, u32)) -> (u32, u32) {
    let ratio = f64::from(width) / f64::from(height);
    let area = u64::from(width) * u64::from(height);
    let mut arrangements: Vec<(u32, u32)> = (1..=most)
        .flat_map(|columns| (1..=most).map(move |rows| (columns, rows)))
        .filter(|(columns, rows)| (least..=most).contains(&(columns * rows)))
        .collect();
    arrangements.sort_by_key(|(columns, rows)| columns * rows);
    let (mut best, mut best_difference) = ((1, 1), f64::INFINITY);
    for (columns, rows) in arrangements {
        let difference = (ratio - f64::from(columns) / f64::from(rows)).abs();
        let tiles = u64::from(columns * rows) * u64::from(side).pow(2);
        // Equal to the bit, as in transformers.
        let as_close = difference == best_difference && 2 * area > tiles;
        if difference < best_difference || as_close {
            (best, best_difference) = ((columns, rows), difference);
        }
    }
    best
}

impl InternVlProcessor {
    fn columns_rows(&self, size: (u32, u32)) -> (u32, u32) {
        arrangement(size, self.side, self.tiles)
    }
}

impl Processor for InternVlProcessor {
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan> {
        let (columns, rows) = self.columns_rows((width, height));
        let tiles = match columns * rows {
            1 => 1,
            tiles => tiles + 1,
        };
        let patches = i64::from(self.side / self.patch);
        Ok(ImagePlan {
            width: columns * self.side,
            height: rows * self.side,
            grid_thw: [i64::from(tiles), patches, patches],
            tokens: tiles as usize * self.tokens,
            original_hw: [i64::from(height), i64::from(width)],
        })
    }

    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor> {
        let resample = self.pixels.resample;
        let whole = pixels::resize(rgb, plan.width, plan.height, resample)?;
        let sizes = (self.side, self.patch);
        let mut values = Vec::new();
        for top in (0..plan.height).step_by(self.side as usize) {
            for left in (0..plan.width).step_by(self.side as usize) {
                pixels::push_tile(&self.table, &whole, (left, top), sizes, &mut values);
            }
        }
        if plan.grid_thw[0] > 1 {
            let small = pixels::resize(rgb, self.side, self.side, resample)?;
            pixels::push_tile(&self.table, &small, (0, 0), sizes, &mut values);
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
            text: format!("{BEGIN}{}{END}", self.placeholder.text),
            runs: vec![plan.tokens],
        }
    }

    fn chat_template(&self) -> &'static str {
        CHAT_TEMPLATE
    }
}

#[cfg(test)]
mod tests {
    use super::arrangement;

    #[test]
    fn the_closest_shape_wins_and_large_images_get_more_tiles() {
        assert_eq!(arrangement((100, 100), 448, (1, 12)), (1, 1));
        assert_eq!(arrangement((2000, 2000), 448, (1, 12)), (3, 3));
        assert_eq!(arrangement((1000, 480), 448, (1, 12)), (2, 1));
        assert_eq!(arrangement((480, 1500), 448, (1, 12)), (1, 3));
    }
}
