//! From patches to features of the language model: squares of patches, one matrix.

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::Linear;
use crate::models::shuffle::pixel_shuffle;

/// Pixel shuffle by `scale`, then `modality_projection.proj`.
#[derive(Debug)]
pub struct Connector {
    name: String,
    parameters: Vec<ParameterSpec>,
    projection: Linear,
    /// Patches along a tile's side.
    side: i64,
    scale: i64,
}

impl Connector {
    pub fn new(mut b: UnitBuilder, width: i64, output: i64, side: i64, scale: i64) -> Self {
        let projection = b.linear(
            "modality_projection.proj",
            width * scale * scale,
            output,
            false,
        );
        Self {
            projection,
            side,
            scale,
            name: b.module(),
            parameters: b.finish(),
        }
    }
}

impl Unit for Connector {
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
        self.projection.random()
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("a connector reads one stream".into()));
        };
        let x = pixel_shuffle(x, self.side, self.scale)?;
        Ok(vec![self.projection.forward(&x, weights, context)?])
    }
}
