//! Features from inside the vision tower, added to the states of their placeholders.

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};

/// Stands behind a decoder block; has no parameters.
#[derive(Debug)]
pub struct DeepStackAdd {
    name: String,
    reads: [Stream; 2],
}

impl DeepStackAdd {
    /// Adds the `nth` of the tower's inner features.
    pub fn new(nth: usize) -> Self {
        Self {
            name: format!("deepstack.{nth}"),
            reads: [Stream::Hidden, Stream::DeepStack(nth)],
        }
    }
}

impl Unit for DeepStackAdd {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &[]
    }

    fn reads(&self, _side: &SideInputs) -> &[Stream] {
        &self.reads
    }

    fn writes(&self) -> &[Stream] {
        &[Stream::Hidden]
    }

    fn active(&self, side: &SideInputs) -> bool {
        side.vision.is_some()
    }

    fn forward(
        &self,
        _weights: &Weights,
        inputs: &[Tensor],
        context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let ([hidden_th, features_nh], Some(vision)) = (inputs, &context.side.vision) else {
            return Err(Error::Bug("DeepStack reads states and features".into()));
        };
        let rows_n = &vision.placeholder_rows_n;
        Ok(vec![hidden_th.f_index_add(0, rows_n, features_nh)?])
    }
}
