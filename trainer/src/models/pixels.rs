//! Pixel arithmetic that image processors share: resizing, rescaling, normalising.

use image::RgbImage;
use tch::{Kind, Tensor};

use super::image_config::{ImageConfig, Resample};
use crate::error::{Error, Result};

/// Resizes as torchvision does: antialiased, in 8-bit fixed point.
pub fn resize(rgb: &RgbImage, width: u32, height: u32, resample: Resample) -> Result<RgbImage> {
    if rgb.dimensions() == (width, height) {
        return Ok(rgb.clone());
    }
    let (old_h, old_w) = (i64::from(rgb.height()), i64::from(rgb.width()));
    let size = [i64::from(height), i64::from(width)];
    let image_nchw = Tensor::f_from_data_size(rgb.as_raw(), &[1, old_h, old_w, 3], Kind::Uint8)?
        .f_permute([0, 3, 1, 2])?;
    let resized_nchw = match resample {
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

/// The float32 value of each 8-bit level of each channel, rescaled and normalised.
#[derive(Debug)]
pub struct NormaliseTable {
    values: [Vec<f32>; 3],
}

impl NormaliseTable {
    /// Follows transformers' fused form, `(level - mean / factor) / (std / factor)`, in float32.
    pub fn new(config: &ImageConfig) -> Self {
        let channel = |c: usize| {
            (0..=u8::MAX)
                .map(|level| normalised(config, c, level))
                .collect()
        };
        Self {
            values: [channel(0), channel(1), channel(2)],
        }
    }

    /// The value of an 8-bit level; `channel` is 0, 1 or 2.
    pub fn value(&self, channel: usize, level: u8) -> f32 {
        self.values[channel][usize::from(level)]
    }
}

fn normalised(config: &ImageConfig, channel: usize, level: u8) -> f32 {
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
