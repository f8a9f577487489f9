//! What a unit is: parameters, streams read and written, one forward function.

use std::ops::Index;

use tch::Tensor;

use super::{SideInputs, Tower, UnitCache};
use crate::error::Result;

/// A named activation that travels between units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// `[T, H]` token states of the language model.
    Hidden,
    /// `[P, D]` patch states of the vision tower, later `[N, H]` projected features.
    Vision,
    /// `[N, H]` features taken from inside the vision tower, added inside the language model.
    DeepStack(usize),
}

/// Index of a parameter among those its unit declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param(pub usize);

/// Where a parameter's first value comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// The checkpoint's tensor of that name.
    Checkpoint,
    Zeros,
    /// Uniform in `±bound`, seeded by the parameter's name.
    Uniform {
        bound: f64,
    },
}

/// One parameter as its unit declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// The name on disk, as read (see `models::hf`).
    pub name: String,
    pub shape: Vec<i64>,
    pub tower: Tower,
    pub trainable: bool,
    pub init: Init,
}

impl ParameterSpec {
    /// Whether weight decay applies: matrices only, not biases and norms (as `transformers`).
    pub fn decay(&self) -> bool {
        self.shape.len() >= 2
    }
}

/// A unit's gathered parameters: its own in declared order, then the borrowed ones.
#[derive(Debug)]
pub struct Weights(pub(super) Vec<Tensor>);

impl Index<Param> for Weights {
    type Output = Tensor;

    // A `Param` is only ever handed out by the builder that also fills this list.
    #[allow(clippy::indexing_slicing)]
    fn index(&self, param: Param) -> &Tensor {
        &self.0[param.0]
    }
}

/// What a unit's forward may look at besides its streams.
#[derive(Debug)]
pub struct UnitContext<'a> {
    pub side: &'a SideInputs,
    /// Dropout acts only when true.
    pub training: bool,
    /// While generating: keys and values that this unit has already seen.
    pub cache: Option<UnitCache<'a>>,
}

/// The granule of recompute, sharding, offload, communication and memory accounting.
pub trait Unit: Send {
    /// Module path for messages and traces, e.g. `language.layers.3`.
    fn name(&self) -> &str;
    fn parameters(&self) -> &[ParameterSpec];
    /// Names of parameters owned by other units that this one also uses (tied weights);
    /// they follow its own in [`Weights`].
    fn borrows(&self) -> &[String] {
        &[]
    }
    /// May depend on the batch: a text-only one has no vision stream.
    fn reads(&self, side: &SideInputs) -> &[Stream];
    fn writes(&self) -> &[Stream];
    /// False if this batch has nothing for the unit (vision units of a text-only batch).
    fn active(&self, side: &SideInputs) -> bool;
    /// A table `[V, H]` of which the unit only uses the rows of `input_ids`. The engine looks
    /// them up itself, appends them `[T, H]` to the inputs and adds their gradient row by row,
    /// so that no dense `[V, H]` gradient is made on every step.
    fn lookup(&self) -> Option<Param> {
        None
    }
    /// Whether forward draws random numbers while training.
    fn random(&self) -> bool {
        false
    }
    /// `inputs` follow [`Unit::reads`], the result follows [`Unit::writes`]. Inputs are never
    /// changed in place.
    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>>;
}
