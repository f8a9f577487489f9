//! Linear layers, with an optional low-rank adapter.

use tch::Tensor;

use crate::engine::{Param, UnitContext, Weights};
use crate::error::Result;

/// `x W^T + b`, and the adapter's `scale * dropout(x) A^T B^T` if there is one.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    pub weight: Param,
    pub bias: Option<Param>,
    pub lora: Option<Lora>,
}

/// A low-rank adapter: A `[rank, in]`, B `[out, rank]`.
#[derive(Debug, Clone, Copy)]
pub struct Lora {
    pub a: Param,
    pub b: Param,
    pub scale: f64,
    pub dropout: f64,
}

impl Linear {
    /// `[T, in]` to `[T, out]`.
    pub fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let y = x.f_linear(&weights[self.weight], self.bias.map(|b| &weights[b]))?;
        match self.lora {
            None => Ok(y),
            Some(lora) => Ok(y.f_add(&lora.forward(x, weights, context)?)?),
        }
    }

    /// Whether forward draws random numbers while training.
    pub fn random(&self) -> bool {
        self.lora.is_some_and(|lora| lora.dropout > 0.0)
    }
}

impl Lora {
    fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        let none = None::<&Tensor>;
        let down = if self.dropout > 0.0 && context.training {
            x.f_dropout(self.dropout, true)?
                .f_linear(&weights[self.a], none)?
        } else {
            x.f_linear(&weights[self.a], none)?
        };
        Ok(down
            .f_linear(&weights[self.b], none)?
            .f_mul_scalar(self.scale)?)
    }
}
