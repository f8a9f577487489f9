//! Idefics3's image processor: square tiles in raster order, then the whole image as one more.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;

use super::config::Config;
use crate::error::Result;
use crate::models::config::{ConfigJson, Section, limits};
use crate::models::image_config::{self, HALF_PIXELS, PixelConfig, PixelLimits, Resample};
use crate::models::pixels::{self, NormaliseTable};
use crate::models::processing::{no_pixel_limits, token};
use crate::processor::{Expansion, ImagePlan, Placeholder, Processor};

/// The chat template of the published checkpoints, without the video branch.
pub const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// Markers around the image tokens; all are tokens of the checkpoint's vocabulary.
const FAKE_TOKEN: &str = "<fake_token_around_image>";
const GLOBAL: &str = "<global-img>";
/// No side becomes longer, pixels.
const LONGEST: u32 = 4096;

/// One run of `<image>` for each tile.
#[derive(Debug)]
pub struct Idefics3Processor {
    config: TileConfig,
    table: NormaliseTable,
    patch: u32,
    /// Image tokens of a tile.
    tokens: usize,
    placeholder: Placeholder,
}

/// How an image becomes tiles.
#[derive(Debug, Clone, PartialEq)]
struct TileConfig {
    pixels: PixelConfig,
    /// The longer side after resizing, pixels.
    longest_edge: u32,
    /// Side of a tile, pixels.
    tile: u32,
    splits: bool,
}

/// An image's two sizes, `(width, height)` in pixels, and how many tiles it is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    resized: (u32, u32),
    whole_tiles: (u32, u32),
    /// `(0, 0)`: the image is one tile.
    rows_columns: (u32, u32),
}

/// Opens the processor of a checkpoint folder.
pub fn open(folder: &Path, json: &ConfigJson, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    no_pixel_limits(limits)?;
    let config = Config::read(json)?;
    let images = image_config::read(folder)?;
    let tile = TileConfig::read(images.top())?;
    let (side, scale) = (i64::from(tile.tile), config.scale);
    let patches = side / config.tower.patch;
    if side != config.tower.image || patches % scale != 0 || patches == 0 {
        let problem = format!(
            "makes tiles of {side} pixels; the tower takes {}, and {scale} patches of {} must \
             divide them",
            config.tower.image, config.tower.patch
        );
        return Err(images.top().error("max_image_size", &problem));
    }
    Ok(Arc::new(Idefics3Processor {
        table: NormaliseTable::new(&tile.pixels),
        config: tile,
        patch: u32::try_from(config.tower.patch).unwrap_or(1),
        tokens: usize::try_from((patches / scale).pow(2)).unwrap_or(0),
        placeholder: token(json, &["image_token_id"], "<image>")?,
    }))
}

impl TileConfig {
    fn read(s: Section) -> Result<Self> {
        let edge = |key: &'static str, default: i64| -> Result<u32> {
            let edge = match s.part(key) {
                Some(size) => size.integer_up_to("longest_edge", limits::PIXELS)?,
                None if s.get(key).is_some() => s.integer_up_to(key, limits::PIXELS)?,
                None => default,
            };
            u32::try_from(edge).map_err(|_| s.error(key, "is too large"))
        };
        let defaults = PixelConfig {
            resample: Resample::Lanczos,
            ..HALF_PIXELS
        };
        Ok(Self {
            pixels: PixelConfig::read(s, &defaults)?,
            longest_edge: edge("size", 4 * 364)?,
            tile: edge("max_image_size", 364)?,
            splits: s.flag("do_image_splitting")?.unwrap_or(true),
        })
    }

    fn tiling(&self, width: u32, height: u32) -> Tiling {
        let resized = match self.pixels.do_resize {
            true => below(even_sides(width, height, self.longest_edge), LONGEST),
            false => (width, height),
        };
        let whole_tiles = match self.splits {
            true => multiples(resized, self.tile),
            false => (self.tile, self.tile),
        };
        let (columns, rows) = (whole_tiles.0 / self.tile, whole_tiles.1 / self.tile);
        Tiling {
            resized,
            whole_tiles,
            rows_columns: if rows * columns > 1 {
                (rows, columns)
            } else {
                (0, 0)
            },
        }
    }
}

impl Tiling {
    fn tiles(self) -> u32 {
        self.rows_columns.0 * self.rows_columns.1 + 1
    }
}

/// The longer side becomes `longest`; the shorter follows and is made even. Arithmetic in double
/// precision as in transformers, which truncates.
fn even_sides(width: u32, height: u32, longest: u32) -> (u32, u32) {
    let even = |side: u32| (side + side % 2).max(1);
    let ratio = f64::from(width) / f64::from(height);
    match width >= height {
        true => (longest, even((f64::from(longest) / ratio) as u32)),
        false => (even((f64::from(longest) * ratio) as u32), longest),
    }
}

fn below((width, height): (u32, u32), longest: u32) -> (u32, u32) {
    let ratio = f64::from(width) / f64::from(height);
    if width >= height && width > longest {
        (longest, ((f64::from(longest) / ratio) as u32).max(1))
    } else if height > width && height > longest {
        (((f64::from(longest) * ratio) as u32).max(1), longest)
    } else {
        (width.max(1), height.max(1))
    }
}

/// Both sides as multiples of `tile`, the longer decided first.
fn multiples((width, height): (u32, u32), tile: u32) -> (u32, u32) {
    let up = |side: u32| side.div_ceil(tile).max(1) * tile;
    let ratio = f64::from(width) / f64::from(height);
    if width >= height {
        let width = up(width);
        (width, up((f64::from(width) / ratio) as u32))
    } else {
        let height = up(height);
        (up((f64::from(height) * ratio) as u32), height)
    }
}

impl Idefics3Processor {
    fn tiling(&self, plan: &ImagePlan) -> Tiling {
        let side = |side: i64| u32::try_from(side).unwrap_or(1);
        let [height, width] = plan.original_hw;
        self.config.tiling(side(width), side(height))
    }
}

impl Processor for Idefics3Processor {
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan> {
        let tiling = self.config.tiling(width, height);
        let patches = i64::from(self.config.tile / self.patch);
        Ok(ImagePlan {
            width: tiling.whole_tiles.0,
            height: tiling.whole_tiles.1,
            grid_thw: [i64::from(tiling.tiles()), patches, patches],
            tokens: tiling.tiles() as usize * self.tokens,
            original_hw: [i64::from(height), i64::from(width)],
        })
    }

    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor> {
        let tiling = self.tiling(plan);
        let (tile, resample) = (self.config.tile, self.config.pixels.resample);
        let (width, height) = tiling.resized;
        let resized = pixels::resize(rgb, width, height, resample)?;
        let (width, height) = tiling.whole_tiles;
        let whole = pixels::resize(&resized, width, height, resample)?;
        let mut values = Vec::new();
        let (rows, columns) = tiling.rows_columns;
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
            let corner = (column * tile, row * tile);
            pixels::push_tile(&self.table, &whole, corner, (tile, self.patch), &mut values);
        }
        let small = pixels::resize(&whole, tile, tile, resample)?;
        pixels::push_tile(&self.table, &small, (0, 0), (tile, self.patch), &mut values);
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
        let tiling = self.tiling(plan);
        Expansion {
            text: prompt_text(tiling.rows_columns, &self.placeholder.text),
            runs: vec![self.tokens; tiling.tiles() as usize],
        }
    }

    fn chat_template(&self) -> &'static str {
        CHAT_TEMPLATE
    }
}

/// Markers and one image token for each tile.
fn prompt_text((rows, columns): (u32, u32), image: &str) -> String {
    let mut text = String::new();
    for row in 1..=rows {
        for column in 1..=columns {
            // Writing to a string cannot fail.
            let _ = write!(text, "{FAKE_TOKEN}<row_{row}_col_{column}>{image}");
        }
        text.push('\n');
    }
    if rows > 0 {
        text.push('\n');
    }
    text + FAKE_TOKEN + GLOBAL + image + FAKE_TOKEN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiling(width: u32, height: u32) -> Tiling {
        let config = TileConfig {
            pixels: HALF_PIXELS,
            longest_edge: 1456,
            tile: 364,
            splits: true,
        };
        config.tiling(width, height)
    }

    #[test]
    fn the_longer_side_decides_and_tiles_are_whole() {
        let wide = tiling(800, 300);
        assert_eq!(wide.resized, (1456, 546));
        assert_eq!(wide.whole_tiles, (1456, 728));
        assert_eq!((wide.rows_columns, wide.tiles()), ((2, 4), 9));
        assert_eq!(tiling(300, 800).rows_columns, (4, 2));
    }

    #[test]
    fn a_single_tile_has_only_the_global_marker() {
        let text = prompt_text((0, 0), "<image>");
        let expected = "<fake_token_around_image><global-img><image><fake_token_around_image>";
        assert_eq!(text, expected);
        let text = prompt_text((1, 2), "I");
        let row = "<fake_token_around_image><row_1_col_1>I<fake_token_around_image><row_1_col_2>I";
        let whole = "<fake_token_around_image><global-img>I<fake_token_around_image>";
        assert_eq!(text, format!("{row}\n\n{whole}"));
    }
}
