//! Qwen2-VL's image processor: smart resizing, patches in merge order, mrope positions.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::models::config::{ConfigJson, Section};
use crate::models::image_config::{self, CLIP_PIXELS, PixelConfig, PixelLimits};
use crate::models::pixels::{self, NormaliseTable};
use crate::models::processing::token;
use crate::processor::{Expansion, ImagePlan, Placeholder, Processor};

/// Neither side of an image may be longer than this many times the other.
const MAX_ASPECT_RATIO: f64 = 200.0;

/// The chat template of the published checkpoints, without the video branch.
pub const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// How images become patches.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageConfig {
    pub pixels: PixelConfig,
    /// Side of a patch, pixels.
    pub patch_size: u32,
    /// Frames that one patch spans.
    pub temporal_patch_size: u32,
    /// Side of the square of patches that becomes one token.
    pub merge_size: u32,
    /// Least and largest area after resizing, pixels.
    pub min_pixels: u64,
    pub max_pixels: u64,
}

/// Images for the Qwen-VL families: one run of `<|image_pad|>` for each, one token for each
/// merged patch.
#[derive(Debug)]
pub struct Qwen2VlProcessor {
    config: ImageConfig,
    table: NormaliseTable,
    placeholder: Placeholder,
    chat_template: &'static str,
}

/// Opens the processor of a checkpoint folder.
pub fn open(folder: &Path, config: &ConfigJson, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    open_with(folder, config, limits, CHAT_TEMPLATE)
}

/// The same with another family's chat template.
pub fn open_with(
    folder: &Path,
    config: &ConfigJson,
    limits: PixelLimits,
    chat_template: &'static str,
) -> Result<Arc<dyn Processor>> {
    let placeholder = token(config, &["image_token_id"], "<|image_pad|>")?;
    let file = image_config::read(folder)?;
    let images = ImageConfig::read(file.top())?.limited(limits)?;
    images.check_against(config.section("vision_config"), file.top())?;
    Ok(Arc::new(Qwen2VlProcessor {
        table: NormaliseTable::new(&images.pixels),
        config: images,
        placeholder,
        chat_template,
    }))
}

impl ImageConfig {
    /// `min_pixels`/`max_pixels` (transformers 4) outrank `size.shortest_edge`/`size.longest_edge`
    /// (5), as in transformers.
    fn read(s: Section) -> Result<Self> {
        let side = |key: &str, default: i64| {
            let side = s.integer_up_to_or(key, 256, default)?;
            u32::try_from(side).map_err(|_| s.error(key, "is too large"))
        };
        let area = |flat: &str, edge: &str, default: i64| -> Result<u64> {
            let size = s.part("size").unwrap_or(s);
            let area = match s.get(flat) {
                Some(_) => s.integer_up_to(flat, MAX_AREA)?,
                None => size.integer_up_to_or(edge, MAX_AREA, default)?,
            };
            Ok(area.unsigned_abs())
        };
        let config = Self {
            pixels: PixelConfig::read(s, &CLIP_PIXELS)?,
            patch_size: side("patch_size", 14)?,
            temporal_patch_size: side("temporal_patch_size", 2)?,
            merge_size: side("merge_size", 2)?,
            min_pixels: area("min_pixels", "shortest_edge", 56 * 56)?,
            max_pixels: area("max_pixels", "longest_edge", 28 * 28 * 1280)?,
        };
        config
            .check()
            .map_err(|reason| s.error("max_pixels", &reason))?;
        Ok(config)
    }

    /// The same with the run's own area limits.
    fn limited(mut self, limits: PixelLimits) -> Result<Self> {
        self.min_pixels = limits.min_pixels.unwrap_or(self.min_pixels);
        self.max_pixels = limits.max_pixels.unwrap_or(self.max_pixels);
        if limits.min_pixels.is_none() {
            self.min_pixels = self.min_pixels.min(self.max_pixels);
        }
        self.check()
            .map_err(|reason| Error::User(format!("dataset pixel limits: maxPixels {reason}")))?;
        Ok(self)
    }

    /// The vision tower must take the patches that are made.
    fn check_against(&self, vision: Section, own: Section) -> Result<()> {
        for (key, value, of_model) in [
            ("patch_size", self.patch_size, "patch_size"),
            (
                "temporal_patch_size",
                self.temporal_patch_size,
                "temporal_patch_size",
            ),
            ("merge_size", self.merge_size, "spatial_merge_size"),
        ] {
            let wanted = vision.get(of_model);
            if wanted.is_some_and(|wanted| wanted.as_u64() != Some(value.into())) {
                let problem = format!(
                    "is {value}, but config.json's vision_config.{of_model} is {}; take both files \
                     from the same model",
                    wanted.map(ToString::to_string).unwrap_or_default()
                );
                return Err(own.error(key, &problem));
            }
        }
        Ok(())
    }

    /// Side of the square of pixels that becomes one token.
    fn merged_side(&self) -> u32 {
        self.patch_size * self.merge_size
    }

    fn check(&self) -> Result<(), String> {
        let square = u64::from(self.merged_side()).pow(2);
        if self.min_pixels > self.max_pixels || self.max_pixels < square {
            return Err(format!(
                "is {}; it must be at least min_pixels, {}, and one merged square, {square}",
                self.max_pixels, self.min_pixels
            ));
        }
        Ok(())
    }
}

/// Above what any image has, pixels.
const MAX_AREA: i64 = 1 << 28;

impl Processor for Qwen2VlProcessor {
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan> {
        let config = &self.config;
        let side = config.merged_side();
        let original_hw = [i64::from(height), i64::from(width)];
        let (width, height) = if config.pixels.do_resize {
            smart_resize(width, height, side, config)?
        } else {
            whole_squares(width, height, side)?
        };
        let (grid_h, grid_w) = (height / config.patch_size, width / config.patch_size);
        let merged = (grid_h / config.merge_size) as usize * (grid_w / config.merge_size) as usize;
        Ok(ImagePlan {
            width,
            height,
            grid_thw: [1, i64::from(grid_h), i64::from(grid_w)],
            tokens: merged,
            original_hw,
        })
    }

    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor> {
        let resized = pixels::resize(rgb, plan.width, plan.height, self.config.pixels.resample)?;
        let patches = self.patches(&resized);
        let rows = plan.grid_thw.iter().product::<i64>();
        Ok(Tensor::f_from_slice(&patches)?.f_view([rows, -1])?)
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

    fn position_ids(&self, ids: &[u32], plans: &[ImagePlan]) -> Result<Vec<Vec<i64>>> {
        let merge = i64::from(self.config.merge_size);
        mrope_positions(ids, plans, self.placeholder.id, merge)
    }

    fn chat_template(&self) -> &'static str {
        self.chat_template
    }
}

impl Qwen2VlProcessor {
    /// `[P * D]` in Qwen2-VL's order: merged squares in raster order, the patches of a square in
    /// raster order; within a patch channel, time, row, column.
    fn patches(&self, rgb: &RgbImage) -> Vec<f32> {
        let patch = self.config.patch_size as usize;
        let merge = self.config.merge_size as usize;
        let times = self.config.temporal_patch_size;
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        let mut values = Vec::with_capacity(width * height * 3 * times as usize);
        for square_y in (0..height).step_by(patch * merge) {
            for square_x in (0..width).step_by(patch * merge) {
                for index in 0..merge * merge {
                    let top = square_y + index / merge * patch;
                    let left = square_x + index % merge * patch;
                    self.table
                        .push_patch(rgb, (left, top), patch, times, &mut values);
                }
            }
        }
        values
    }
}

/// Size, pixels, closest to the image's shape whose sides are multiples of `factor` and whose
/// area lies between the configured limits. Follows transformers' `smart_resize`, which rounds
/// half to even.
fn smart_resize(width: u32, height: u32, factor: u32, config: &ImageConfig) -> Result<(u32, u32)> {
    let (w, h, factor) = (f64::from(width), f64::from(height), f64::from(factor));
    if w.max(h) / w.min(h) > MAX_ASPECT_RATIO {
        return Err(Error::Data(format!(
            "the image is {width}x{height} pixels; this model takes none whose one side is more than \
             {MAX_ASPECT_RATIO} times the other: crop it or leave it out"
        )));
    }
    let (min_pixels, max_pixels) = (config.min_pixels as f64, config.max_pixels as f64);
    let nearest = |side: f64| (side / factor).round_ties_even() * factor;
    let (mut new_w, mut new_h) = (nearest(w), nearest(h));
    if new_w * new_h > max_pixels {
        let shrink = (w * h / max_pixels).sqrt();
        let below = |side: f64| factor.max((side / shrink / factor).floor() * factor);
        (new_w, new_h) = (below(w), below(h));
    } else if new_w * new_h < min_pixels {
        let grow = (min_pixels / (w * h)).sqrt();
        let above = |side: f64| (side * grow / factor).ceil() * factor;
        (new_w, new_h) = (above(w), above(h));
    }
    Ok((new_w as u32, new_h as u32))
}

/// The image's own size, where the processor is told not to resize.
fn whole_squares(width: u32, height: u32, factor: u32) -> Result<(u32, u32)> {
    if width.is_multiple_of(factor) && height.is_multiple_of(factor) && width > 0 && height > 0 {
        return Ok((width, height));
    }
    Err(Error::Data(format!(
        "the image is {width}x{height} pixels and the model's preprocessor has `do_resize: false`: \
         make both sides multiples of {factor}"
    )))
}

/// Multimodal rotary positions (time, row, column): text counts up on all three axes; an image
/// spans its merged grid from where the text stopped, and the text goes on after its largest.
fn mrope_positions(
    ids: &[u32],
    plans: &[ImagePlan],
    image_token: u32,
    merge: i64,
) -> Result<Vec<Vec<i64>>> {
    let mut axes: Vec<Vec<i64>> = (0..3).map(|_| Vec::with_capacity(ids.len())).collect();
    let mut plans = plans.iter();
    let (mut index, mut next) = (0, 0);
    while let Some(&id) = ids.get(index) {
        if id != image_token {
            axes.iter_mut().for_each(|axis| axis.push(next));
            (index, next) = (index + 1, next + 1);
            continue;
        }
        let plan = plans.next().ok_or_else(placeholders_differ)?;
        let [times, rows, columns] = plan.grid_thw;
        let grid = [times, rows / merge, columns / merge];
        push_grid(&mut axes, grid, next);
        index += plan.tokens;
        next += grid.into_iter().max().unwrap_or(0);
    }
    match plans.next() {
        None if index == ids.len() => Ok(axes),
        _ => Err(placeholders_differ()),
    }
}

/// Appends the positions of one image's merged grid, raster order.
fn push_grid(axes: &mut [Vec<i64>], [times, rows, columns]: [i64; 3], from: i64) {
    for time in 0..times {
        for row in 0..rows {
            for column in 0..columns {
                for (axis, position) in axes.iter_mut().zip([time, row, column]) {
                    axis.push(from + position);
                }
            }
        }
    }
}

fn placeholders_differ() -> Error {
    Error::Bug("image placeholders and image plans differ in number".into())
}
