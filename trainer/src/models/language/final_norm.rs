//! The norm before the output head.

use tch::Tensor;

use crate::engine::{ParameterSpec, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::error::{Error, Result};
use crate::models::builder::UnitBuilder;
use crate::models::layers::{Norm, NormKind};

#[derive(Debug)]
pub struct FinalNorm {
    name: String,
    parameters: Vec<ParameterSpec>,
    norm: Norm,
}

impl FinalNorm {
    pub fn new(mut builder: UnitBuilder, hidden: i64, kind: NormKind) -> Self {
        let norm = builder.norm("", hidden, kind);
        Self {
            name: builder.module(),
            parameters: builder.finish(),
            norm,
        }
    }
}

impl Unit for FinalNorm {
    fn name(&self) -> &str {
        &self.name
    }

    fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    fn reads(&self, _side: &SideInputs) -> &[Stream] {
        &[Stream::Hidden]
    }

    fn writes(&self) -> &[Stream] {
        &[Stream::Hidden]
    }

    fn active(&self, _side: &SideInputs) -> bool {
        true
    }

    fn forward(
        &self,
        weights: &Weights,
        inputs: &[Tensor],
        _context: &UnitContext,
    ) -> Result<Vec<Tensor>> {
        let [x] = inputs else {
            return Err(Error::Bug("the final norm reads one stream".into()));
        };
        Ok(vec![self.norm.forward(x, weights)?])
    }
}
