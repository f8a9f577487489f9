//! Pixel arithmetic that image processors share: resizing, rescaling, normalising.

use image::RgbImage;
use tch::{Kind, Tensor};

use super::image_config::{PixelConfig, Resample};
use crate::error::{Error, Result};

/// An intermediate image larger than this, pixels, is refused.
const MAX_PIXELS: u64 = 1 << 27;

/// Resizes as torchvision does: antialiased, in 8-bit fixed point.
pub fn resize(rgb: &RgbImage, width: u32, height: u32, resample: Resample) -> Result<RgbImage> {
    if rgb.dimensions() == (width, height) {
        return Ok(rgb.clone());
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::Data(format!(
            "the image is {}x{} pixels and would become {width}x{height}, more than {MAX_PIXELS} \
             pixels; crop it or leave it out",
            rgb.width(),
            rgb.height()
        )));
    }
    let (old_h, old_w) = (i64::from(rgb.height()), i64::from(rgb.width()));
    let size = [i64::from(height), i64::from(width)];
    let image_nchw = Tensor::f_from_data_size(rgb.as_raw(), &[1, old_h, old_w, 3], Kind::Uint8)?
        .f_permute([0, 3, 1, 2])?;
    let resized_nchw = match resample {
        Resample::Lanczos => {
            image_nchw.f_internal_upsample_lanczos2d_aa(size, false, None, None)?
        }
        Resample::Bicubic => {
            image_nchw.f_internal_upsample_bicubic2d_aa(size, false, None, None)?
        }
        Resample::Bilinear => {
            image_nchw.f_internal_upsample_bilinear2d_aa(size, false, None, None)?
        }
    };
    let resized_hwc = resized_nchw
        .f_squeeze_dim(0)?
        .f_permute([1, 2, 0])?
        .f_contiguous()?;
    let levels = Vec::<u8>::try_from(resized_hwc.f_flatten(0, 2)?)?;
    RgbImage::from_raw(width, height, levels)
        .ok_or_else(|| Error::Bug("resizing returned too few pixels".into()))
}

/// Height and width whose shorter side is `edge`, as torchvision rounds the longer.
pub fn shortest_edge(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let long = |long: u32, short: u32| {
        let exact = u64::from(edge) * u64::from(long) / u64::from(short.max(1));
        u32::try_from(exact).unwrap_or(u32::MAX)
    };
    match width <= height {
        true => (edge, long(height, width)),
        false => (long(width, height), edge),
    }
}

/// The middle of an image, black where the image ends.
pub fn centre_crop(rgb: &RgbImage, width: u32, height: u32) -> RgbImage {
    let start = |side: u32, crop: u32| (i64::from(side) - i64::from(crop)).div_euclid(2);
    // Where the image is smaller, torchvision pads the smaller half first.
    let padding = |side: u32, crop: u32| match crop > side {
        true => -i64::from((crop - side) / 2),
        false => start(side, crop),
    };
    let (left, top) = (padding(rgb.width(), width), padding(rgb.height(), height));
    placed(rgb, (width, height), (-left, -top), [0; 3])
}

/// A canvas of one colour with the image at `(x, y)`; what lies outside is cut off.
pub fn placed(
    rgb: &RgbImage,
    (width, height): (u32, u32),
    (x, y): (i64, i64),
    colour: [u8; 3],
) -> RgbImage {
    let mut canvas = RgbImage::from_pixel(width, height, image::Rgb(colour));
    image::imageops::replace(&mut canvas, rgb, x, y);
    canvas
}

/// The patches of a square tile at `(left, top)` in raster order, appended to `values`; each is
/// `[3, patch, patch]`.
pub fn push_tile(
    table: &NormaliseTable,
    rgb: &RgbImage,
    (left, top): (u32, u32),
    (side, patch): (u32, u32),
    values: &mut Vec<f32>,
) {
    let (left, top) = (left as usize, top as usize);
    let (patch, whole) = (patch as usize, (side / patch * patch) as usize);
    for y in (top..top + whole).step_by(patch) {
        for x in (left..left + whole).step_by(patch) {
            table.push_patch(rgb, (x, y), patch, 1, values);
        }
    }
}

/// The float32 value of each 8-bit level of each channel, rescaled and normalised.
#[derive(Debug)]
pub struct NormaliseTable {
    values: [Vec<f32>; 3],
}

impl NormaliseTable {
    /// Follows transformers' fused form, `(level - mean / factor) / (std / factor)`, in float32.
    pub fn new(config: &PixelConfig) -> Self {
        let channel = |c: usize| {
            (0..=u8::MAX)
                .map(|level| normalised(config, c, level))
                .collect()
        };
        Self {
            values: [channel(0), channel(1), channel(2)],
        }
    }

    /// Appends the patch at `(left, top)`, `[3, times, patch, patch]`: a still image fills every
    /// time slot.
    pub fn push_patch(
        &self,
        rgb: &RgbImage,
        (left, top): (usize, usize),
        patch: usize,
        times: u32,
        values: &mut Vec<f32>,
    ) {
        let stride = rgb.width() as usize * 3;
        let raw = rgb.as_raw();
        for channel in 0..3 {
            let start = values.len();
            for y in top..top + patch {
                let row = &raw[y * stride + left * 3..y * stride + (left + patch) * 3];
                let levels = row.iter().skip(channel).step_by(3);
                values.extend(levels.map(|&level| self.value(channel, level)));
            }
            for _ in 1..times {
                values.extend_from_within(start..start + patch * patch);
            }
        }
    }

    /// The value of an 8-bit level; `channel` is 0, 1 or 2.
    pub fn value(&self, channel: usize, level: u8) -> f32 {
        self.values[channel][usize::from(level)]
    }
}

fn normalised(config: &PixelConfig, channel: usize, level: u8) -> f32 {
    let (mean, std) = (
        config.image_mean[channel] as f32,
        config.image_std[channel] as f32,
    );
    let level = f32::from(level);
    match (config.do_rescale, config.do_normalize) {
        (true, true) => {
            let levels = (1.0 / config.rescale_factor) as f32;
            (level - mean * levels) / (std * levels)
        }
        (true, false) => level * config.rescale_factor as f32,
        (false, true) => (level - mean) / std,
        (false, false) => level,
    }
}
