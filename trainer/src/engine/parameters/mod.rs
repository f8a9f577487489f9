//! Parameters as leaf views into flat buffers.

mod build;
mod gather;

use std::collections::HashMap;

use tch::{Kind, Tensor};

pub use build::{StoreOptions, TensorSource};

use super::Precision;
use crate::error::Result;

/// Part of the model, for learning rates and switches per tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tower {
    Vision,
    Projector,
    Language,
}

/// What one flat buffer has in common; the optimizer treats all its elements alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupKey {
    /// Storage kind: what the optimizer updates.
    pub dtype: Kind,
    /// Learning-rate group.
    pub tower: Tower,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// Where a parameter lies in its flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Checkpoint name.
    pub name: String,
    pub shape: Vec<i64>,
    /// Element offset, 64-byte aligned; the gap before the next span holds zeros.
    pub offset: i64,
}

impl Span {
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// This span of a flat `[N]` tensor, in its own shape; shares memory.
    pub fn view(&self, flat: &Tensor) -> Result<Tensor> {
        Ok(flat
            .f_narrow(0, self.offset, self.numel())?
            .f_view(self.shape.as_slice())?)
    }
}

/// The trainable parameters of one unit that share a [`GroupKey`].
///
/// `weights` and `grad` are only ever changed in place: leaf views share their memory.
#[derive(Debug)]
pub struct FlatBuffer {
    pub key: GroupKey,
    /// Index of the owning unit, in execution order.
    pub unit: usize,
    pub spans: Vec<Span>,
    /// `[N]` in the storage kind; float32 masters under `BFloat16Mixed`. What the optimizer
    /// updates and a checkpoint saves; units see it (or its cast) as they gather.
    pub weights: Tensor,
    /// `[N]` gradient, in the storage kind; micro-batches add into it.
    pub grad: Tensor,
    /// Whether a backward pass reached it since the last [`ParameterStore::zero_grad`]; the
    /// optimizer skips the buffer if not, as PyTorch does for `grad = None`.
    pub touched: bool,
    /// One leaf per span, where units compute in the storage kind; else made while gathering.
    leaves: Vec<Tensor>,
}

#[cfg(test)]
impl FlatBuffer {
    /// A buffer that no unit reads, for tests of what works on flat buffers alone.
    pub(crate) fn alone(key: GroupKey, spans: Vec<Span>, weights: Tensor) -> Self {
        Self {
            key,
            unit: 0,
            spans,
            grad: weights.zeros_like(),
            weights,
            touched: false,
            leaves: Vec::new(),
        }
    }
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
    Trainable { buffer: usize, span: usize },
    Frozen(usize),
}

/// All parameters of a model, in execution order: trainable ones in flat buffers, frozen ones
/// by themselves. A parameter has one owning unit and any number of borrowers.
#[derive(Debug)]
pub struct ParameterStore {
    precision: Precision,
    buffers: Vec<FlatBuffer>,
    frozen: Vec<FrozenParameter>,
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
            let _ = buffer.grad.f_zero_()?;
            buffer.touched = false;
        }
        Ok(())
    }

    /// Every parameter under its checkpoint name, in storage kind, trainable ones first.
    pub fn named(&self) -> Result<Vec<(&str, Tensor)>> {
        let mut all = self.spans_of(|buffer| &buffer.weights)?;
        all.extend(
            self.frozen
                .iter()
                .map(|p| (p.name.as_str(), p.weight.shallow_clone())),
        );
        Ok(all)
    }

    /// The trainable parameters under their checkpoint names, in storage kind.
    pub fn named_trainable(&self) -> Result<Vec<(&str, Tensor)>> {
        self.spans_of(|buffer| &buffer.weights)
    }

    /// The gradient of every trainable parameter under its checkpoint name.
    pub fn named_grads(&self) -> Result<Vec<(&str, Tensor)>> {
        self.spans_of(|buffer| &buffer.grad)
    }

    fn spans_of(&self, flat: impl Fn(&FlatBuffer) -> &Tensor) -> Result<Vec<(&str, Tensor)>> {
        let spans = self
            .buffers
            .iter()
            .flat_map(|b| b.spans.iter().map(move |s| (b, s)));
        spans
            .map(|(buffer, span)| Ok((span.name.as_str(), span.view(flat(buffer))?)))
            .collect()
    }
}
