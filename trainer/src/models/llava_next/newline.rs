//! Arranges tiles' features into the image they show, with a learned separator behind each row.

use tch::Tensor;

use crate::engine::{Param, ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;

/// `image_newline`, put where the side inputs' arrangement says.
#[derive(Debug)]
pub struct ImageNewline {
    name: String,
    parameters: Vec<ParameterSpec>,
    separator: Param,
}

impl ImageNewline {
    pub fn new(mut b: UnitBuilder, hidden: i64) -> Self {
        Self {
            separator: b.parameter("image_newline", &[hidden]),
            name: "image_newline".to_owned(),
            parameters: b.finish(),
        }
    }
}

impl Unit for ImageNewline {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    fn reads(&self, _side: &SideInputs) -> &[Stream] {
        &[Stream::Vision]
    }

    fn writes(&self) -> &[Stream] {
        &[Stream::Vision]
    }

    fn active(&self, side: &SideInputs) -> bool {
        side.vision.is_some()
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let vision = context.side.vision.as_ref();
        let arrangement = vision.and_then(|vision| vision.arrangement_s.as_ref());
        let ([features_nh], Some(rows_s)) = (inputs, arrangement) else {
            return Err(Error::Bug(
                "separators need features and an arrangement".into(),
            ));
        };
        let separator = weights[self.separator].f_unsqueeze(0)?;
        let all = Tensor::f_cat(&[features_nh, &separator], 0)?;
        Ok(vec![all.f_index_select(0, rows_s)?])
    }
}
