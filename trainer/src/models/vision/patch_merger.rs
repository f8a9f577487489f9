//! Merges neighbouring patches and projects them into the language model.

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Activation, Mlp, Norm, NormKind};

/// What a merger calls its parts.
#[derive(Debug)]
pub struct MergerNames {
    pub norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

/// Qwen2-VL's and Qwen2.5-VL's.
pub const QWEN2_VL_MERGER: MergerNames = MergerNames {
    norm: "ln_q",
    up: "mlp.0",
    down: "mlp.2",
};

/// A norm, then a two-layer MLP over groups of `merge` consecutive patches.
#[derive(Debug)]
pub struct PatchMerger {
    name: String,
    parameters: Vec<ParameterSpec>,
    norm: Norm,
    mlp: Mlp,
    merged_width: i64,
    /// The norm runs over merged patches, not over single ones.
    merges_first: bool,
    writes: [Stream; 1],
}

impl PatchMerger {
    /// From `merge` patches of `width` to one feature of `output`. The norm runs over merged
    /// patches if `merges_first`.
    pub fn new(
        mut b: UnitBuilder,
        names: &MergerNames,
        [width, merge, output]: [i64; 3],
        norm: NormKind,
        merges_first: bool,
    ) -> Self {
        let merged_width = width * merge;
        let normed_width = if merges_first { merged_width } else { width };
        Self {
            norm: b.norm(names.norm, normed_width, norm),
            mlp: Mlp::Plain {
                up: b.linear(names.up, merged_width, merged_width, true),
                down: b.linear(names.down, merged_width, output, true),
                activation: Activation::Gelu,
            },
            merged_width,
            merges_first,
            writes: [Stream::Vision],
            name: b.module(),
            parameters: b.finish(),
        }
    }

    /// The same, writing another stream and leaving the tower's as it is.
    pub fn into_stream(self, stream: Stream) -> Self {
        let writes = [stream];
        Self { writes, ..self }
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
        &self.writes
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
            return Err(Error::Bug("a merger reads one stream".into()));
        };
        let merged = |x: &Tensor| x.f_view([-1, self.merged_width]);
        let x = match self.merges_first {
            true => self.norm.forward(&merged(x)?, weights)?,
            false => merged(&self.norm.forward(x, weights)?)?,
        };
        Ok(vec![self.mlp.forward(&x, weights, context)?])
    }
}
