//! Stream values on the way forward, one adding gradient slot per stream on the way back.

use std::collections::BTreeMap;

use tch::Tensor;

use super::Stream;
use crate::error::{Error, Result};

/// A stream's current value, cut off from whatever made it.
#[derive(Debug)]
struct Value {
    tensor: Tensor,
    /// Whether something trainable feeds it.
    tracked: bool,
}

/// The streams between two units.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<Stream, Value>);

impl Streams {
    /// The unit's inputs, detached; one requires grad exactly if something trainable feeds it.
    pub(super) fn read(&self, names: &[Stream]) -> Result<Vec<Tensor>> {
        names.iter().map(|name| self.leaf(*name)).collect()
    }

    fn leaf(&self, name: Stream) -> Result<Tensor> {
        let value = self.0.get(&name).ok_or_else(|| {
            Error::Bug(format!("stream {name:?} is read before any unit wrote it"))
        })?;
        let leaf = value.tensor.f_detach()?;
        if value.tracked {
            Ok(leaf.f_set_requires_grad(true)?)
        } else {
            Ok(leaf)
        }
    }

    /// Replaces the values of `names`.
    pub(super) fn write(&mut self, names: &[Stream], tensors: Vec<Tensor>, tracked: bool) {
        for (name, tensor) in names.iter().zip(tensors) {
            self.0.insert(*name, Value { tensor, tracked });
        }
    }

    /// Takes a stream's value out; nothing reads it any more.
    pub(super) fn take(&mut self, name: Stream) -> Result<Tensor> {
        let value = self.0.remove(&name);
        value
            .map(|v| v.tensor)
            .ok_or_else(|| Error::Bug(format!("stream {name:?} was not written")))
    }

    pub(super) fn tracked(&self, name: Stream) -> bool {
        self.0.get(&name).is_some_and(|value| value.tracked)
    }
}

/// Gradients of the streams between two units; each slot adds what its readers send.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<Stream, Tensor>);

impl Slots {
    /// Adds a reader's gradient; `None` (the reader did not use its input) adds nothing.
    pub(super) fn add(&mut self, name: Stream, grad: Option<Tensor>) -> Result<()> {
        let Some(grad) = grad else { return Ok(()) };
        match self.0.get_mut(&name) {
            Some(slot) => {
                let _ = slot.f_add_(&grad)?;
            }
            None => {
                self.0.insert(name, grad);
            }
        }
        Ok(())
    }

    /// Empties the slot: the unit that wrote the stream is about to run backward.
    pub(super) fn take(&mut self, name: Stream) -> Option<Tensor> {
        self.0.remove(&name)
    }
}
