//! LLaVA's projector: two layers between the tower's features and the language model.

use tch::Tensor;

use super::builder::UnitBuilder;
use super::layers::{Activation, Mlp};
use super::vision::{FeatureLayer, FeatureUnit};
use crate::engine::{UnitContext, Weights};
use crate::error::Result;

/// `linear_1`, activation, `linear_2`, over patch features without their class tokens.
#[derive(Debug)]
pub struct TwoLayerProjector {
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
    pub fn new(mut b: UnitBuilder, shape: ProjectorShape) -> FeatureUnit<Self> {
        let ProjectorShape {
            width,
            hidden,
            bias,
            ..
        } = shape;
        let layer = Self {
            mlp: Mlp::Plain {
                up: b.linear("linear_1", width, hidden, bias),
                down: b.linear("linear_2", hidden, hidden, bias),
                activation: shape.activation,
            },
            shape,
        };
        FeatureUnit::new(b, layer)
    }
}

impl FeatureLayer for TwoLayerProjector {
    fn random(&self) -> bool {
        self.mlp.random()
    }

    fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
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
        self.mlp.forward(&x, weights, context)
    }
}
