//! Merges neighbouring patches and projects them into the language model.

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Activation, LayerNorm, Linear};

/// `ln_q`, then a two-layer MLP over groups of `merge` consecutive patches.
#[derive(Debug)]
pub struct PatchMerger {
    name: String,
    parameters: Vec<ParameterSpec>,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
    merged_width: i64,
}

impl PatchMerger {
    /// From `merge` patches of `width` to one feature of `output`.
    pub fn new(mut b: UnitBuilder, width: i64, merge: i64, output: i64, norm_eps: f64) -> Self {
        let merged_width = width * merge;
        let norm = LayerNorm {
            weight: b.parameter("ln_q.weight", &[width]),
            bias: b.parameter("ln_q.bias", &[width]),
            size: width,
            eps: norm_eps,
        };
        let up = b.linear("mlp.0", merged_width, merged_width, true);
        let down = b.linear("mlp.2", merged_width, output, true);
        Self {
            name: b.module(),
            parameters: b.finish(),
            norm,
            up,
            down,
            merged_width,
        }
    }
}

impl Unit for PatchMerger {
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
        self.up.random() || self.down.random()
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("a merger reads one stream".into()));
        };
        let x = self
            .norm
            .forward(x, weights)?
            .f_view([-1, self.merged_width])?;
        let inner = Activation::Gelu.forward(&self.up.forward(&x, weights, context)?)?;
        Ok(vec![self.down.forward(&inner, weights, context)?])
    }
}
