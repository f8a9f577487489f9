//! Which kinds a run stores and computes in.

use tch::Kind;

/// Storage kind (what the optimizer updates and a checkpoint saves) and compute kind (what
/// units see) of the trainable parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Everything in double precision; for comparisons with the reference only.
    Float64,
    Float32,
    /// float32 masters, gradients and optimizer states; units compute in bfloat16 on weights
    /// cast as they are gathered. 16 bytes a parameter.
    BFloat16Mixed,
    /// bfloat16 weights, gradients and optimizer states. 8 bytes a parameter.
    BFloat16,
}

impl Precision {
    /// Kind of weights at rest, of gradients and of optimizer states.
    pub fn storage(self) -> Kind {
        match self {
            Self::Float64 => Kind::Double,
            Self::Float32 | Self::BFloat16Mixed => Kind::Float,
            Self::BFloat16 => Kind::BFloat16,
        }
    }

    /// Kind of activations, of frozen weights and of weights inside a unit.
    pub fn compute(self) -> Kind {
        match self {
            Self::Float64 => Kind::Double,
            Self::Float32 => Kind::Float,
            Self::BFloat16Mixed | Self::BFloat16 => Kind::BFloat16,
        }
    }
}
