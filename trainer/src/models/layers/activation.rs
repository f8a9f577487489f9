//! Activations by the names that `transformers` gives them.

use tch::Tensor;

use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// Exact, by the error function.
    Gelu,
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
}

impl Activation {
    /// `field` is the config's key, for the message.
    pub fn from_name(name: &str, field: &str) -> Result<Self> {
        match name {
            "silu" | "swish" => Ok(Self::Silu),
            "gelu" => Ok(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Self::GeluTanh),
            "quick_gelu" => Ok(Self::QuickGelu),
            other => Err(Error::User(format!(
                "config.json: {field} is {other}; supported are silu, gelu, gelu_pytorch_tanh \
                 and quick_gelu"
            ))),
        }
    }

    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => x.f_silu()?,
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluTanh => x.f_gelu("tanh")?,
            Self::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?)?,
        })
    }
}
