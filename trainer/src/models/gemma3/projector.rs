//! From patches to features of the language model: the mean of squares of patches, a norm, a
//! matrix.

use tch::{Kind, Tensor};

use crate::engine::{Param, ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Norm, NormKind};

/// `mm_soft_emb_norm` and `mm_input_projection_weight` over pooled patches.
#[derive(Debug)]
pub struct PoolingProjector {
    name: String,
    parameters: Vec<ParameterSpec>,
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
    pub fn new(mut b: UnitBuilder, shape: PoolingShape) -> Self {
        let matrix = [shape.width, shape.hidden];
        Self {
            norm: b.norm("mm_soft_emb_norm", shape.width, shape.norm),
            weight: b.parameter("mm_input_projection_weight", &matrix),
            shape,
            name: b.module(),
            parameters: b.finish(),
        }
    }
}

impl Unit for PoolingProjector {
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
        _context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("a projector reads one stream".into()));
        };
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
        Ok(vec![normed.f_mm(&weights[self.weight])?])
    }
}
