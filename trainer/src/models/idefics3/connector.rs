//! From patches to features of the language model: squares of patches, one matrix.

use tch::Tensor;

use crate::engine::{UnitContext, Weights};
use crate::error::Result;
use crate::models::builder::UnitBuilder;
use crate::models::layers::Linear;
use crate::models::shuffle::pixel_shuffle;
use crate::models::vision::{FeatureLayer, FeatureUnit};

/// Pixel shuffle by `scale`, then `modality_projection.proj`.
#[derive(Debug)]
pub struct Connector {
    projection: Linear,
    /// Patches along a tile's side.
    side: i64,
    scale: i64,
}

impl Connector {
    pub fn new(
        mut b: UnitBuilder,
        width: i64,
        output: i64,
        side: i64,
        scale: i64,
    ) -> FeatureUnit<Self> {
        let projection = b.linear(
            "modality_projection.proj",
            width * scale * scale,
            output,
            false,
        );
        let layer = Self {
            projection,
            side,
            scale,
        };
        FeatureUnit::new(b, layer)
    }
}

impl FeatureLayer for Connector {
    fn random(&self) -> bool {
        self.projection.random()
    }

    fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let x = pixel_shuffle(x, self.side, self.scale)?;
        self.projection.forward(&x, weights, context)
    }
}
