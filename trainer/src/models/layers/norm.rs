//! Normalisations over the last axis.

use tch::{Kind, Tensor};

use crate::engine::{Param, Weights};
use crate::error::Result;

/// `weight * x / rms(x)`; the mean square is taken in at least float32.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm {
    pub weight: Param,
    pub eps: f64,
}

impl RmsNorm {
    pub fn forward(&self, x: &Tensor, weights: &Weights) -> Result<Tensor> {
        let weight = &weights[self.weight];
        if matches!(x.kind(), Kind::Float | Kind::Double) {
            return Ok(x.f_mul(&self.inverse_rms(x)?)?.f_mul(weight)?);
        }
        let wide = x.f_to_kind(Kind::Float)?;
        let normed = wide.f_mul(&self.inverse_rms(&wide)?)?.f_to_kind(x.kind())?;
        Ok(normed.f_mul(weight)?)
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
