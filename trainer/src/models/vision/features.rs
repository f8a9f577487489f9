//! Units that turn the vision tower's features into others: projectors and the like.

use std::fmt;

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;

/// What such a unit computes.
pub trait FeatureLayer: fmt::Debug + Send {
    /// Whether forward draws random numbers while training.
    fn random(&self) -> bool {
        false
    }

    /// From features `[rows, width]` to others.
    fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor>;
}

/// Reads and writes [`Stream::Vision`]; a batch without images passes it by.
#[derive(Debug)]
pub struct FeatureUnit<L> {
    name: String,
    parameters: Vec<ParameterSpec>,
    layer: L,
}

impl<L> FeatureUnit<L> {
    /// A layer with the builder that declared its parameters.
    pub fn new(b: UnitBuilder, layer: L) -> Self {
        Self {
            name: b.module(),
            parameters: b.finish(),
            layer,
        }
    }

    /// Under a name of its own, where the module has none.
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }
}

impl<L: FeatureLayer> Unit for FeatureUnit<L> {
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
        self.layer.random()
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            let message = format!("{} reads one stream", self.name);
            return Err(Error::Bug(message));
        };
        Ok(vec![self.layer.forward(x, weights, context)?])
    }
}
