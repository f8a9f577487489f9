//! From patches to features of the language model: squares of patches, a norm, two layers.

use tch::Tensor;

use crate::engine::{UnitContext, Weights};
use crate::error::Result;
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Activation, Mlp, Norm, NormKind};
use crate::models::shuffle::pixel_shuffle;
use crate::models::vision::{FeatureLayer, FeatureUnit};

/// Drops class tokens, shuffles, then `layer_norm`, `linear_1`, activation, `linear_2`.
#[derive(Debug)]
pub struct ShuffleProjector {
    norm: Norm,
    mlp: Mlp,
    width: i64,
    side: i64,
    scale: i64,
}

/// PyTorch's default, which the reference implementation takes.
const NORM: NormKind = NormKind::Layer { eps: 1e-5 };

impl ShuffleProjector {
    /// From tiles of `side` by `side` patches of `width` to features of `hidden`.
    pub fn new(
        mut b: UnitBuilder,
        [width, hidden]: [i64; 2],
        [side, scale]: [i64; 2],
        activation: Activation,
    ) -> FeatureUnit<Self> {
        let merged = width * scale * scale;
        let layer = Self {
            norm: b.norm("layer_norm", merged, NORM),
            mlp: Mlp::Plain {
                up: b.linear("linear_1", merged, hidden, true),
                down: b.linear("linear_2", hidden, hidden, true),
                activation,
            },
            width,
            side,
            scale,
        };
        FeatureUnit::new(b, layer)
    }
}

impl FeatureLayer for ShuffleProjector {
    fn random(&self) -> bool {
        self.mlp.random()
    }

    fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let patches = self.side * self.side;
        let x = x.f_view([-1, patches + 1, self.width])?;
        let x = x.f_narrow(1, 1, patches)?.f_reshape([-1, self.width])?;
        let x = pixel_shuffle(&x, self.side, self.scale)?;
        let normed = self.norm.forward(&x, weights)?;
        self.mlp.forward(&normed, weights, context)
    }
}
