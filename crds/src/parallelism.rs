//! `spec.parallelism`: how states are spread over ranks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parallelism {
    /// What each rank holds whole and what only as a slice.
    #[serde(default)]
    pub strategy: Strategy,
    /// What moves to host memory between uses.
    #[serde(default)]
    pub offload: Offload,
}

/// Data parallelism with ever more state sharded (ZeRO, Rajbhandari et al. 2020).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum Strategy {
    /// The least sharded strategy that fits.
    #[default]
    Auto,
    /// Everything whole on every rank.
    #[serde(rename = "DDP")]
    Ddp,
    /// Optimizer states sharded.
    Zero1,
    /// Optimizer states and gradients sharded.
    Zero2,
    /// Optimizer states, gradients and parameters sharded.
    Zero3,
}

/// What lives in host memory.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum Offload {
    #[default]
    None,
    /// Master weights and optimizer states; the update runs on the CPU.
    Optimizer,
    /// The above and the parameters.
    Parameters,
}

impl Strategy {
    /// All of them, the least sharded first.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Ddp, Self::Zero1, Self::Zero2, Self::Zero3];

    /// As the spec writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Ddp => "DDP",
            Self::Zero1 => "Zero1",
            Self::Zero2 => "Zero2",
            Self::Zero3 => "Zero3",
        }
    }

    /// The reverse of [`Self::as_str`].
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == text)
    }
}

impl Offload {
    /// All of them, the one that moves least first.
    pub const ALL: [Self; 3] = [Self::None, Self::Optimizer, Self::Parameters];

    /// As the spec writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Optimizer => "Optimizer",
            Self::Parameters => "Parameters",
        }
    }

    /// The reverse of [`Self::as_str`].
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_schema() {
        for strategy in Strategy::ALL {
            let json = serde_json::to_value(strategy).unwrap();
            assert_eq!(json, strategy.as_str());
            assert_eq!(Strategy::read(strategy.as_str()), Some(strategy));
        }
        for offload in Offload::ALL {
            let json = serde_json::to_value(offload).unwrap();
            assert_eq!(json, offload.as_str());
            assert_eq!(Offload::read(offload.as_str()), Some(offload));
        }
        assert_eq!(Strategy::read("Zero4"), None);
    }
}
