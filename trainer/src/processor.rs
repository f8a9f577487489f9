//! What a model family knows about turning images and placeholders into model input.
//! Implemented by each family in `models`, used by `data`.

use image::RgbImage;
use tch::Tensor;

use crate::error::Result;

/// How one image will enter the model; a pure function of its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// Size after resizing, pixels.
    pub width: u32,
    pub height: u32,
    /// Patch grid `(t, h, w)`, before any merging.
    pub grid_thw: [i64; 3],
    /// Tokens whose embeddings vision features replace, that is: the projector's rows for it.
    pub tokens: usize,
}

/// A family's processor (Hugging Face `preprocessor_config.json` and the placeholder rules).
pub trait Processor: Send + Sync {
    /// Chooses the size and grid for an image of this size, pixels. A data error if the family
    /// cannot take an image of this shape.
    fn plan_image(&self, width: u32, height: u32) -> Result<ImagePlan>;

    /// `[P, D]` float32 patches of one RGB image.
    fn pixel_values(&self, rgb: &RgbImage, plan: &ImagePlan) -> Result<Tensor>;

    /// What the chat template writes once for each image.
    fn placeholder(&self) -> &Placeholder;

    /// The ids that take the single placeholder's place. Exactly `plan.tokens` of them are
    /// [`Self::image_token_id`]; families that cut an image into tiles put markers between.
    fn expansion(&self, plan: &ImagePlan) -> Vec<u32>;

    /// The id whose positions vision features replace.
    fn image_token_id(&self) -> u32;

    /// Positions on each axis for one sample of expanded ids, axis-major (`A` vectors of `T`),
    /// from 0.
    fn position_ids(&self, ids: &[u32], plans: &[ImagePlan]) -> Result<Vec<Vec<i64>>>;

    /// The family's chat template, for checkpoints that bring none.
    fn chat_template(&self) -> &'static str;
}

/// The token that stands for one whole image in a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    pub text: String,
    pub id: u32,
}
