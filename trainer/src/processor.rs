//! What a model family knows about turning images and placeholders into model input.
//! Implemented by each family in `models`, used by `data`.

use image::RgbImage;
use tch::Tensor;

use crate::error::Result;

/// How one image will enter the model; a pure function of its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// Size after resizing, pixels; of all tiles together where it is cut into some.
    pub width: u32,
    pub height: u32,
    /// Patch grid `(t, h, w)`, before any merging: `t` frames or tiles of `h` by `w` patches.
    pub grid_thw: [i64; 3],
    /// Tokens whose embeddings vision features replace, that is: the projector's rows for it.
    pub tokens: usize,
    /// Size as given, height and width in pixels.
    pub original_hw: [i64; 2],
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

    /// The token whose positions vision features replace.
    fn image_token(&self) -> &Placeholder;

    /// What takes the single placeholder's place in the prompt.
    fn expansion(&self, plan: &ImagePlan) -> Expansion;

    /// Positions on each axis for one sample of expanded ids, axis-major (`A` vectors of `T`),
    /// from 0. Most families count tokens.
    fn position_ids(&self, ids: &[u32], _plans: &[ImagePlan]) -> Result<Vec<Vec<i64>>> {
        Ok(vec![(0..).take(ids.len()).collect()])
    }

    /// The family's chat template, for checkpoints that bring none.
    fn chat_template(&self) -> &'static str;
}

/// A token that stands for an image or a part of one in a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    pub text: String,
    pub id: u32,
}

/// What an image is in the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// Text for the tokenizer, with markers, in which the image token stands once for each run.
    pub text: String,
    /// How many image tokens each of those stands for, in order; they sum to the plan's tokens.
    pub runs: Vec<usize>,
}
