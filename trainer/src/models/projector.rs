//! LLaVA's projector: two layers between the tower's features and the language model.

use tch::Tensor;

use super::builder::UnitBuilder;
use super::layers::{Activation, Mlp};
use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};

/// `linear_1`, activation, `linear_2`, over patch features without their class tokens.
#[derive(Debug)]
pub struct TwoLayerProjector {
    name: String,
    parameters: Vec<ParameterSpec>,
    mlp: Mlp,
    shape: ProjectorShape,
}

/// Sizes of a [`TwoLayerProjector`].
#[derive(Debug, Clone, Copy)]
pub struct ProjectorShape {
    pub width: i64,
    pub hidden: i64,
    pub bias: bool,
    pub activation: Activation,
    /// Rows of a tile, and how many of the first are left out.
    pub rows: i64,
    pub skipped: i64,
}

impl TwoLayerProjector {
    pub fn new(mut b: UnitBuilder, shape: ProjectorShape) -> Self {
        let ProjectorShape {
            width,
            hidden,
            bias,
            ..
        } = shape;
        Self {
            mlp: Mlp::Plain {
                up: b.linear("linear_1", width, hidden, bias),
                down: b.linear("linear_2", hidden, hidden, bias),
                activation: shape.activation,
            },
            shape,
            name: b.module(),
            parameters: b.finish(),
        }
    }
}

impl Unit for TwoLayerProjector {
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

    fn random(&self) -> bool {
        self.mlp.random()
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("a projector reads one stream".into()));
        };
        let ProjectorShape {
            width,
            rows,
            skipped,
            ..
        } = self.shape;
        let x = match skipped {
            0 => x.shallow_clone(),
            _ => x
                .f_view([-1, rows, width])?
                .f_narrow(1, skipped, rows - skipped)?
                .f_reshape([-1, width])?,
        };
        Ok(vec![self.mlp.forward(&x, weights, context)?])
    }
}
