//! What a model family knows about turning images and placeholders into model input.
//! Implemented by each family in `models`, used by `data`.

use image::RgbImage;
use tch::Tensor;

use crate::error::Error;

/// How one image will enter the model; a pure function of its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// Size after resizing, pixels.
    pub width: u32,
    pub height: u32,
    /// Patch grid `(t, h, w)`.
    pub grid_thw: [i64; 3],
    /// Placeholder tokens this image occupies in the text.
    pub tokens: usize,
}

/// A family's processor (Hugging Face `preprocessor_config.json` and the placeholder rules).
pub trait Processor: Send + Sync {
    /// Chooses the size and grid for an image of this size, pixels.
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan, Error>;
    /// `[P, D]` float32 patches of one RGB image.
    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor, Error>;
    /// Replaces each single image placeholder in `ids` by as many as its plan asks for.
    fn expand_placeholders(&self, ids: &[u32], plans: &[ImagePlan]) -> Result<Vec<u32>, Error>;
    /// Positions on each axis for one sample of expanded ids, axis-major (`A` vectors of `T`).
    fn position_ids(&self, ids: &[u32], plans: &[ImagePlan]) -> Result<Vec<Vec<i64>>, Error>;
    /// The id whose positions vision features replace.
    fn image_token_id(&self) -> u32;
}
