//! Hugging Face image processor configuration, as transformers 4 and 5 write it.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// The two files a checkpoint may keep it in. transformers 5 nests it in the former.
const NESTED: &str = "processor_config.json";
const FLAT: &str = "preprocessor_config.json";

/// What an image goes through before it is cut into patches. Defaults are Qwen2-VL's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub do_resize: bool,
    pub resample: Resample,
    pub do_rescale: bool,
    pub rescale_factor: f64,
    pub do_normalize: bool,
    pub image_mean: [f64; 3],
    pub image_std: [f64; 3],
    /// Side of a patch, pixels.
    pub patch_size: u32,
    /// Frames that one patch spans.
    pub temporal_patch_size: u32,
    /// Side of the square of patches that becomes one token.
    pub merge_size: u32,
    /// Least and largest area after resizing, pixels.
    #[serde(skip)]
    pub min_pixels: u64,
    #[serde(skip)]
    pub max_pixels: u64,
}

/// PIL's numbers of the filters that torchvision's antialiased resize has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u8")]
pub enum Resample {
    Bilinear,
    Bicubic,
}

/// A run's own area limits, pixels; they outrank the checkpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PixelLimits {
    pub min_pixels: Option<u64>,
    pub max_pixels: Option<u64>,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            do_resize: true,
            resample: Resample::Bicubic,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
            patch_size: 14,
            temporal_patch_size: 2,
            merge_size: 2,
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 1280,
        }
    }
}

impl TryFrom<u8> for Resample {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            2 => Ok(Self::Bilinear),
            3 => Ok(Self::Bicubic),
            _ => Err(format!(
                "resample {number} is not supported; use 2 (bilinear) or 3 (bicubic)"
            )),
        }
    }
}

impl ImageConfig {
    /// Reads it from a checkpoint folder: the nested form outranks the flat file, as in
    /// transformers. A user error if neither is there or a field makes no sense.
    pub fn read(folder: &Path) -> Result<Self> {
        if let Some(processor) = read_json(&folder.join(NESTED))?
            && let Some(nested) = processor.get("image_processor")
        {
            return Self::parse(nested, &folder.join(NESTED));
        }
        match read_json(&folder.join(FLAT))? {
            Some(flat) => Self::parse(&flat, &folder.join(FLAT)),
            None => Err(Error::User(format!(
                "{}: the checkpoint has neither {FLAT} nor a {NESTED} with `image_processor`; copy \
                 it from the model it was made from",
                folder.display()
            ))),
        }
    }

    /// Reads one of the two forms. `min_pixels`/`max_pixels` (transformers 4) outrank
    /// `size.shortest_edge`/`size.longest_edge` (5), as in transformers.
    fn parse(value: &Value, file: &Path) -> Result<Self> {
        let at_fault = |reason: String| Error::User(format!("{}: {reason}", file.display()));
        let mut config =
            Self::deserialize(without_nulls(value)).map_err(|error| at_fault(error.to_string()))?;
        let pixels = |flat: &str, edge: &str| {
            let old = value.get(flat).and_then(Value::as_u64);
            old.or_else(|| value.get("size")?.get(edge)?.as_u64())
        };
        let defaults = Self::default();
        config.min_pixels = pixels("min_pixels", "shortest_edge").unwrap_or(defaults.min_pixels);
        config.max_pixels = pixels("max_pixels", "longest_edge").unwrap_or(defaults.max_pixels);
        config.check().map_err(at_fault)?;
        Ok(config)
    }

    /// The same with the run's own area limits.
    pub fn limited(mut self, limits: PixelLimits) -> Result<Self> {
        self.min_pixels = limits.min_pixels.unwrap_or(self.min_pixels);
        self.max_pixels = limits.max_pixels.unwrap_or(self.max_pixels);
        if limits.min_pixels.is_none() {
            self.min_pixels = self.min_pixels.min(self.max_pixels);
        }
        self.check()
            .map_err(|reason| Error::User(format!("dataset pixel limits: {reason}")))?;
        Ok(self)
    }

    /// Side of the square of pixels that becomes one token.
    pub fn merged_side(&self) -> u32 {
        self.patch_size * self.merge_size
    }

    fn check(&self) -> Result<(), String> {
        let sizes = [self.patch_size, self.merge_size, self.temporal_patch_size];
        if sizes.iter().any(|size| !(1..=256).contains(size)) {
            return Err("patch_size, merge_size and temporal_patch_size must be 1 to 256".into());
        }
        let square = u64::from(self.merged_side()).pow(2);
        if self.min_pixels > self.max_pixels || self.max_pixels < square {
            return Err(format!(
                "min_pixels {} must not exceed max_pixels {}, which must be at least {square}",
                self.min_pixels, self.max_pixels
            ));
        }
        let positive = |values: [f64; 3]| values.iter().all(|value| *value > 0.0);
        if !positive(self.image_std) || self.rescale_factor <= 0.0 {
            return Err("image_std and rescale_factor must be positive".into());
        }
        Ok(())
    }
}

/// transformers writes unset fields as `null`.
fn without_nulls(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

/// The file's JSON, or `None` if there is no such file.
fn read_json(path: &Path) -> Result<Option<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Storage(format!("{}: {error}", path.display()))),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::User(format!("{}: not JSON: {error}", path.display())))
}
