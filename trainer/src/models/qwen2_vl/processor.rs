//! Qwen2-VL's image processor: smart resizing, patches in merge order, mrope positions.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::models::config::ConfigJson;
use crate::models::image_config::{ImageConfig, PixelLimits};
use crate::models::pixels::{self, NormaliseTable};
use crate::processor::{ImagePlan, Placeholder, Processor};

/// Neither side of an image may be longer than this many times the other.
const MAX_ASPECT_RATIO: f64 = 200.0;

/// The chat template of the published checkpoints, without the video branch.
pub const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

/// Images for Qwen2-VL: one run of `<|image_pad|>` for each, one token for each merged patch.
#[derive(Debug)]
pub struct Qwen2VlProcessor {
    config: ImageConfig,
    table: NormaliseTable,
    placeholder: Placeholder,
}

/// Opens the processor of a checkpoint folder.
pub fn open(folder: &Path, config: &ConfigJson, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    let image_token = config.top().integer("image_token_id")?;
    let image_token = u32::try_from(image_token)
        .map_err(|_| config.top().error("image_token_id", "is no token id"))?;
    let images = ImageConfig::read(folder)?.limited(limits)?;
    Ok(Arc::new(Qwen2VlProcessor::new(images, image_token)))
}

impl Qwen2VlProcessor {
    /// A processor with this configuration.
    pub fn new(config: ImageConfig, image_token_id: u32) -> Self {
        let table = NormaliseTable::new(&config);
        let placeholder = Placeholder {
            text: "<|image_pad|>".to_owned(),
            id: image_token_id,
        };
        Self {
            config,
            table,
            placeholder,
        }
    }

    /// Side of the square that becomes one token, pixels.
    fn merged_side(&self) -> u32 {
        self.config.patch_size * self.config.merge_size
    }
}

impl Processor for Qwen2VlProcessor {
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan> {
        let config = &self.config;
        let (width, height) = if config.do_resize {
            smart_resize(width, height, self.merged_side(), config)?
        } else {
            whole_squares(width, height, self.merged_side())?
        };
        let (grid_h, grid_w) = (height / config.patch_size, width / config.patch_size);
        let merged = (grid_h / config.merge_size) as usize * (grid_w / config.merge_size) as usize;
        Ok(ImagePlan {
            width,
            height,
            grid_thw: [1, i64::from(grid_h), i64::from(grid_w)],
            tokens: merged,
        })
    }

    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor> {
        let resized = pixels::resize(rgb, plan.width, plan.height, self.config.resample)?;
        let patches = self.patches(&resized);
        let rows = plan.grid_thw.iter().product::<i64>();
        Ok(Tensor::f_from_slice(&patches)?.f_view([rows, -1])?)
    }

    fn placeholder(&self) -> &Placeholder {
        &self.placeholder
    }

    fn expansion(&self, plan: &ImagePlan) -> Vec<u32> {
        vec![self.placeholder.id; plan.tokens]
    }

    fn image_token_id(&self) -> u32 {
        self.placeholder.id
    }

    fn position_ids(&self, ids: &[u32], plans: &[ImagePlan]) -> Result<Vec<Vec<i64>>> {
        let merge = i64::from(self.config.merge_size);
        mrope_positions(ids, plans, self.placeholder.id, merge)
    }

    fn chat_template(&self) -> &'static str {
        CHAT_TEMPLATE
    }
}

impl Qwen2VlProcessor {
    /// `[P * D]` in Qwen2-VL's order: merged squares in raster order, the patches of a square in
    /// raster order; within a patch channel, time, row, column. A still image fills every time
    /// slot of the temporal patch.
    fn patches(&self, rgb: &RgbImage) -> Vec<f32> {
        let patch = self.config.patch_size as usize;
        let merge = self.config.merge_size as usize;
        let times = self.config.temporal_patch_size as usize;
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        let mut values = Vec::with_capacity(width * height * 3 * times);
        for square_y in (0..height).step_by(patch * merge) {
            for square_x in (0..width).step_by(patch * merge) {
                for index in 0..merge * merge {
                    let top = square_y + index / merge * patch;
                    let left = square_x + index % merge * patch;
                    self.push_patch(rgb, left, top, &mut values);
                }
            }
        }
        values
    }

    /// Appends one patch, `[C, times, patch, patch]`.
    fn push_patch(&self, rgb: &RgbImage, left: usize, top: usize, values: &mut Vec<f32>) {
        let patch = self.config.patch_size as usize;
        let stride = rgb.width() as usize * 3;
        let raw = rgb.as_raw();
        for channel in 0..3 {
            let start = values.len();
            for y in top..top + patch {
                let row = &raw[y * stride + left * 3..y * stride + (left + patch) * 3];
                let levels = row.iter().skip(channel).step_by(3);
                values.extend(levels.map(|&level| self.table.value(channel, level)));
            }
            for _ in 1..self.config.temporal_patch_size {
                values.extend_from_within(start..start + patch * patch);
            }
        }
    }
}

/// Size, pixels, closest to the image's shape whose sides are multiples of `factor` and whose
/// area lies between the configured limits. Follows transformers' `smart_resize`, which rounds
/// half to even.
fn smart_resize(width: u32, height: u32, factor: u32, config: &ImageConfig) -> Result<(u32, u32)> {
    let (w, h, factor) = (f64::from(width), f64::from(height), f64::from(factor));
    if w.max(h) / w.min(h) > MAX_ASPECT_RATIO {
        return Err(Error::Data(format!(
            "the image is {width}x{height} pixels; Qwen2-VL takes none whose one side is more than \
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
