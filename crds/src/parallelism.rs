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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Offload {
    #[default]
    None,
    /// Master weights and optimizer states; the update runs on the CPU.
    Optimizer,
    /// The above and the parameters.
    Parameters,
}
