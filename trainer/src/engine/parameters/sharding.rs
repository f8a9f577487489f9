//! How much of the parameters this process holds, and what it asks of those that hold the rest.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tch::Tensor;

use super::build::{ALIGN_ELEMENTS, round_up};
use crate::error::Result;

/// What is only held as this process's slice (ZeRO, Rajbhandari et al. 2020). Later stages
/// include the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// Nothing: plain data parallelism.
    #[default]
    Whole,
    /// Optimizer state and master weights.
    Optimizer,
    /// Gradients, once they are reduced.
    Gradients,
    /// Parameters, frozen ones as well, between their uses.
    Parameters,
}

/// What lives in host memory between its uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Offload {
    #[default]
    None,
    /// Optimizer state and master weights; the update runs on the CPU.
    Optimizer,
    /// The parameters as well.
    Parameters,
}

/// This process's share of every flat buffer.
#[derive(Debug, Clone, Default)]
pub struct Sharding {
    pub stage: Stage,
    pub offload: Offload,
    /// Which of the `count` equal slices is ours; the default is the only one.
    pub index: i64,
    /// 0 and 1 both mean: nobody else.
    pub count: i64,
    /// Present where `count` is more than 1.
    pub peers: Option<Arc<dyn Peers>>,
}

/// The processes that hold the other slices. Every process makes the same calls in the same
/// order.
pub trait Peers: fmt::Debug + Send + Sync {
    /// Begins to fill `whole` with the slices of all, in the order of their indices. `slice` may
    /// be the part of `whole` that is ours.
    fn begin_gather(&self, whole: &Tensor, slice: &Tensor) -> Result<Box<dyn Pending>>;
    /// For each place whether anybody says yes.
    fn any_of(&self, own: &[bool]) -> Result<Vec<bool>>;
}

/// Something under way.
pub trait Pending: fmt::Debug {
    fn wait(self: Box<Self>) -> Result<()>;
}

impl Sharding {
    /// Whether anything is sliced at all.
    pub fn is_sharded(&self) -> bool {
        self.count > 1 && self.stage > Stage::Whole
    }

    /// Whether units find their weights in place, without asking anybody.
    pub fn keeps_parameters(&self) -> bool {
        !self.shards_parameters() && self.offload < Offload::Parameters
    }

    /// Whether making weights whole takes the other processes.
    pub fn shards_parameters(&self) -> bool {
        self.is_sharded() && self.stage == Stage::Parameters
    }

    /// Whether a whole gradient lives only until it is reduced.
    pub fn shards_gradients(&self) -> bool {
        self.is_sharded() && self.stage >= Stage::Gradients
    }

    /// `elements` and as many more as make all slices equal and 64-byte aligned.
    pub(super) fn padded(&self, elements: i64) -> i64 {
        match self.is_sharded() {
            true => round_up(elements, self.count * ALIGN_ELEMENTS),
            false => elements,
        }
    }

    /// Our elements of a padded buffer.
    pub(super) fn owned(&self, length: i64) -> Range<i64> {
        match self.is_sharded() {
            true => {
                let part = length / self.count;
                self.index * part..(self.index + 1) * part
            }
            false => 0..length,
        }
    }
}
