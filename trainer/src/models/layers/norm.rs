//! Normalisations over the last axis.

use tch::{Kind, Tensor};

use crate::engine::{Param, Weights};
use crate::error::Result;

/// Which normalisation a family uses, and its epsilon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormKind {
    /// `weight * x / rms(x)`.
    Rms { eps: f64 },
    /// `(1 + weight) * x / rms(x)`, as Gemma stores it.
    RmsPlusOne { eps: f64 },
    /// PyTorch's `LayerNorm` with weight and bias.
    Layer { eps: f64 },
}

/// A normalisation with its parameters.
#[derive(Debug, Clone, Copy)]
pub enum Norm {
    Rms(RmsNorm),
    Layer(LayerNorm),
}

impl Norm {
    pub fn forward(&self, x: &Tensor, weights: &Weights) -> Result<Tensor> {
        match self {
            Self::Rms(norm) => norm.forward(x, weights),
            Self::Layer(norm) => norm.forward(x, weights),
        }
    }
}

/// `weight * x / rms(x)`; the mean square is taken in at least float32.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm {
    pub weight: Param,
    pub eps: f64,
    /// The factor is `1 + weight`, multiplied before the result is rounded to its kind.
    pub plus_one: bool,
}

impl RmsNorm {
    pub fn forward(&self, x: &Tensor, weights: &Weights) -> Result<Tensor> {
        let weight = &weights[self.weight];
        let wide = match x.kind() {
            Kind::Float | Kind::Double => x.shallow_clone(),
            _ => x.f_to_kind(Kind::Float)?,
        };
        let normed = wide.f_mul(&self.inverse_rms(&wide)?)?;
        if self.plus_one {
            let factor = weight.f_to_kind(wide.kind())?.f_add_scalar(1.0)?;
            return Ok(normed.f_mul(&factor)?.f_to_kind(x.kind())?);
        }
        Ok(normed.f_to_kind(x.kind())?.f_mul(weight)?)
    }

    fn inverse_rms(&self, x: &Tensor) -> Result<Tensor> {
        let mean = x
            .f_square()?
            .f_mean_dim([-1i64].as_slice(), true, None::<Kind>)?;
        Ok(mean.f_add_scalar(self.eps)?.f_rsqrt()?)
    }
}

/// PyTorch's `LayerNorm` with weight and bias.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    pub weight: Param,
    pub bias: Param,
    pub size: i64,
    pub eps: f64,
}

impl LayerNorm {
    pub fn forward(&self, x: &Tensor, weights: &Weights) -> Result<Tensor> {
        let (weight, bias) = (&weights[self.weight], &weights[self.bias]);
        Ok(x.f_layer_norm([self.size], Some(weight), Some(bias), self.eps, false)?)
    }
}
