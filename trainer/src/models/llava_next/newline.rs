//! Arranges tiles' features into the image they show, with a learned separator behind each row.

use tch::Tensor;

use crate::engine::{Param, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::vision::{FeatureLayer, FeatureUnit};

/// `image_newline`, put where the side inputs' arrangement says.
#[derive(Debug)]
pub struct ImageNewline {
    separator: Param,
}

impl ImageNewline {
    pub fn new(mut b: UnitBuilder, hidden: i64) -> FeatureUnit<Self> {
        let layer = Self {
            separator: b.parameter("image_newline", &[hidden]),
        };
        FeatureUnit::new(b, layer).named("image_newline")
    }
}

impl FeatureLayer for ImageNewline {
    fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let vision = context.side.vision.as_ref();
        let arrangement = vision.and_then(|vision| vision.arrangement_s.as_ref());
        let missing = || Error::Bug("separators need an arrangement".into());
        let rows_s = arrangement.ok_or_else(missing)?;
        let separator = weights[self.separator].f_unsqueeze(0)?;
        let all = Tensor::f_cat(&[x, &separator], 0)?;
        Ok(all.f_index_select(0, rows_s)?)
    }
}
