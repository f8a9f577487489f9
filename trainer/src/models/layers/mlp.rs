//! Feed-forward layers.

use tch::Tensor;

use super::{Activation, Linear};
use crate::engine::{UnitContext, Weights};
use crate::error::Result;

/// `[T, in]` to `[T, out]` through a wider inner layer.
#[derive(Debug, Clone, Copy)]
pub enum Mlp {
    /// `down(act(up(x)))`.
    Plain {
        up: Linear,
        down: Linear,
        activation: Activation,
    },
    /// `down(act(gate(x)) * up(x))`.
    Gated {
        gate: Linear,
        up: Linear,
        down: Linear,
        activation: Activation,
    },
}

impl Mlp {
    pub fn forward(&self, x: &Tensor, weights: &Weights, context: &UnitContext) -> Result<Tensor> {
        match self {
            Self::Plain {
                up,
                down,
                activation,
            } => {
                let inner = activation.forward(&up.forward(x, weights, context)?)?;
                down.forward(&inner, weights, context)
            }
            Self::Gated {
                gate,
                up,
                down,
                activation,
            } => {
                let gate = activation.forward(&gate.forward(x, weights, context)?)?;
                let inner = gate.f_mul(&up.forward(x, weights, context)?)?;
                down.forward(&inner, weights, context)
            }
        }
    }

    /// Whether forward draws random numbers while training.
    pub fn random(&self) -> bool {
        match self {
            Self::Plain { up, down, .. } => up.random() || down.random(),
            Self::Gated { gate, up, down, .. } => gate.random() || up.random() || down.random(),
        }
    }
}
