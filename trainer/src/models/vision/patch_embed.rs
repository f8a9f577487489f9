//! From flattened patches to patch states.

use tch::Tensor;

use crate::engine::{Param, ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;

/// A convolution whose kernel is its stride, run as the linear layer that it is.
#[derive(Debug)]
pub struct PatchEmbed {
    name: String,
    parameters: Vec<ParameterSpec>,
    weight: Param,
    bias: Option<Param>,
    width: i64,
}

impl PatchEmbed {
    /// `kernel` is the convolution's weight shape after `width`, e.g. `[3, 2, 14, 14]`.
    pub fn new(mut builder: UnitBuilder, width: i64, kernel: &[i64], bias: bool) -> Self {
        let shape: Vec<i64> = [width].iter().chain(kernel).copied().collect();
        let weight = builder.parameter("proj.weight", &shape);
        let bias = bias.then(|| builder.parameter("proj.bias", &[width]));
        Self {
            name: builder.module(),
            parameters: builder.finish(),
            weight,
            bias,
            width,
        }
    }
}

impl Unit for PatchEmbed {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    fn reads(&self, _side: &SideInputs) -> &[Stream] {
        &[]
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
        _inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let vision = context.side.vision.as_ref();
        let vision = vision.ok_or_else(|| Error::Bug("no pixels for the vision tower".into()))?;
        let weight = weights[self.weight].f_view([self.width, -1])?;
        let bias = self.bias.map(|b| &weights[b]);
        Ok(vec![vision.pixel_values_pd.f_linear(&weight, bias)?])
    }
}
