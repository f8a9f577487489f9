//! Parameters as leaf views into flat buffers.

mod build;
mod flat;
mod gather;
mod refresh;
mod sharding;
mod storage;

use std::collections::HashMap;

use tch::{Device, Tensor};

pub use build::{StoreOptions, TensorSource};
pub use flat::{FlatBuffer, GroupKey, Span};
pub(crate) use gather::{Gathering, Wholes};
pub use sharding::{Offload, Peers, Pending, Sharding, Stage};

use super::Precision;
use crate::error::{Error, Result};
use flat::FrozenBuffer;

/// Part of the model, for learning rates and switches per tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tower {
    Vision,
    Projector,
    Language,
}

/// A parameter that no gradient reaches: a view of the mapped checkpoint where kinds agree.
#[derive(Debug)]
pub struct FrozenParameter {
    pub name: String,
    pub unit: usize,
    pub tower: Tower,
    pub weight: Tensor,
}

/// Where a unit's parameter is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Trainable {
        buffer: usize,
        span: usize,
    },
    /// Whole on the device.
    Frozen(usize),
    /// In a frozen buffer, which is gathered.
    FrozenSpan {
        buffer: usize,
        span: usize,
    },
}

/// All parameters of a model, in execution order: trainable ones in flat buffers, frozen ones
/// by themselves. A parameter has one owning unit and any number of borrowers.
#[derive(Debug)]
pub struct ParameterStore {
    precision: Precision,
    device: Device,
    sharding: Sharding,
    buffers: Vec<FlatBuffer>,
    frozen: Vec<FrozenParameter>,
    /// Frozen parameters that are gathered; `frozen` is empty then.
    frozen_buffers: Vec<FrozenBuffer>,
    /// Per unit: its own parameters in declared order, then the borrowed ones.
    units: Vec<Vec<Place>>,
    places: HashMap<String, Place>,
}

impl ParameterStore {
    /// The trainable buffers, in an order that depends on the model and the method alone.
    pub fn buffers(&self) -> &[FlatBuffer] {
        &self.buffers
    }

    pub fn buffers_mut(&mut self) -> &mut [FlatBuffer] {
        &mut self.buffers
    }

    pub fn frozen(&self) -> &[FrozenParameter] {
        &self.frozen
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn sharding(&self) -> &Sharding {
        &self.sharding
    }

    /// For each buffer the first unit, in execution order, that uses it: backward has added all
    /// of its gradient once it is done with that unit.
    pub fn first_users(&self) -> Vec<usize> {
        let mut first = vec![usize::MAX; self.buffers.len()];
        for (unit, places) in self.units.iter().enumerate() {
            for place in places {
                if let Place::Trainable { buffer, .. } = place
                    && let Some(first) = first.get_mut(*buffer)
                {
                    *first = unit.min(*first);
                }
            }
        }
        first
    }

    /// Clears every gradient and its touched mark; once per optimizer step.
    pub fn zero_grad(&mut self) -> Result<()> {
        for buffer in self.buffers.iter_mut().filter(|b| b.touched) {
            buffer.zero_grad()?;
        }
        Ok(())
    }

    /// Every parameter under its checkpoint name, in storage kind, trainable ones first. Nothing
    /// may be sharded.
    pub fn named(&self) -> Result<Vec<(&str, Tensor)>> {
        let mut all = self.spans_of(|buffer| &buffer.weights)?;
        all.extend(
            self.frozen
                .iter()
                .map(|p| (p.name.as_str(), p.weight.shallow_clone())),
        );
        Ok(all)
    }

    /// The trainable parameters under their checkpoint names, in storage kind. Nothing may be
    /// sharded.
    pub fn named_trainable(&self) -> Result<Vec<(&str, Tensor)>> {
        self.spans_of(|buffer| &buffer.weights)
    }

    /// The gradient of every trainable parameter under its checkpoint name. Nothing may be
    /// sharded.
    pub fn named_grads(&self) -> Result<Vec<(&str, Tensor)>> {
        self.spans_of(|buffer| &buffer.grad)
    }

    fn spans_of(&self, flat: impl Fn(&FlatBuffer) -> &Tensor) -> Result<Vec<(&str, Tensor)>> {
        if self.sharding.is_sharded() {
            let message = "whole parameters were asked of a sharded store";
            return Err(Error::Bug(message.into()));
        }
        let spans = self
            .buffers
            .iter()
            .flat_map(|b| b.spans.iter().map(move |s| (b, s)));
        spans
            .map(|(buffer, span)| Ok((span.name.as_str(), span.view(flat(buffer))?)))
            .collect()
    }
}
