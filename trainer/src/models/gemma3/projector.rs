//! From patches to features of the language model: the mean of squares of patches, a norm, a
//! matrix.

use tch::{Kind, Tensor};

use crate::engine::{Param, UnitContext, Weights};
use crate::error::Result;
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Norm, NormKind};
use crate::models::vision::{FeatureLayer, FeatureUnit};

/// `mm_soft_emb_norm` and `mm_input_projection_weight` over pooled patches.
#[derive(Debug)]
pub struct PoolingProjector {
    norm: Norm,
    weight: Param,
    shape: PoolingShape,
}

/// Sizes of a [`PoolingProjector`].
#[derive(Debug, Clone, Copy)]
pub struct PoolingShape {
    pub width: i64,
    pub hidden: i64,
    /// Squares along a tile's side, and patches along a square's.
    pub squares: i64,
    pub square: i64,
    pub norm: NormKind,
}

impl PoolingProjector {
    pub fn new(mut b: UnitBuilder, shape: PoolingShape) -> FeatureUnit<Self> {
        let matrix = [shape.width, shape.hidden];
        let layer = Self {
            norm: b.norm("mm_soft_emb_norm", shape.width, shape.norm),
            weight: b.parameter("mm_input_projection_weight", &matrix),
            shape,
        };
        FeatureUnit::new(b, layer)
    }
}

impl FeatureLayer for PoolingProjector {
    fn forward(&self, x: &Tensor, weights: &Weights, _context: &UnitContext) -> Result<Tensor> {
        let PoolingShape {
            width,
            squares,
            square,
            ..
        } = self.shape;
        // Tile, square's row, row in it, square's column, column in it.
        let x = x.f_view([-1, squares, square, squares, square, width])?;
        let pooled = x.f_mean_dim([2i64, 4].as_slice(), false, None::<Kind>)?;
        let normed = self
            .norm
            .forward(&pooled.f_reshape([-1, width])?, weights)?;
        Ok(normed.f_mm(&weights[self.weight])?)
    }
}
