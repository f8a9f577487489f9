//! A model assembled from units, as `train` and `commands` see it.

use tch::Tensor;

use super::{Head, ParameterStore, SideInputs, Unit};
use crate::batch::Batch;
use crate::error::{Error, Result};

/// Computes a family's [`SideInputs`] for a batch.
pub trait PrepareBatch: Send {
    fn prepare(&self, batch: &Batch) -> Result<SideInputs>;
}

/// What a family hands over: units in execution order, head, side inputs.
pub struct Assembly {
    pub units: Vec<Box<dyn Unit>>,
    pub head: Head,
    pub prepare: Box<dyn PrepareBatch>,
}

/// A batch's loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOutput {
    /// Cross-entropy summed over supervised positions, nats.
    pub loss_sum: f64,
    /// Number of supervised positions.
    pub supervised: i64,
}

/// A model that trains: units over a parameter store.
pub struct UnitModel {
    units: Vec<Box<dyn Unit>>,
    head: Head,
    prepare: Box<dyn PrepareBatch>,
    store: ParameterStore,
}

impl UnitModel {
    pub fn new(assembly: Assembly, store: ParameterStore) -> Self {
        let Assembly {
            units,
            head,
            prepare,
        } = assembly;
        Self {
            units,
            head,
            prepare,
            store,
        }
    }

    pub fn parameters(&self) -> &ParameterStore {
        &self.store
    }

    pub fn parameters_mut(&mut self) -> &mut ParameterStore {
        &mut self.store
    }

    /// Adds the gradient of `loss_sum / normaliser` to the flat gradients. `normaliser` is the
    /// number of supervised tokens of the whole optimizer step; `seed` decides dropout.
    pub fn forward_backward(
        &mut self,
        batch: &Batch,
        normaliser: f64,
        seed: u64,
    ) -> Result<LossOutput> {
        let _ = (
            batch,
            normaliser,
            seed,
            &self.units,
            &self.head,
            &self.prepare,
        );
        Err(Error::Bug(
            "UnitModel::forward_backward is being written".into(),
        ))
    }

    /// The loss alone: no graph, no dropout.
    pub fn loss(&self, batch: &Batch) -> Result<LossOutput> {
        let _ = batch;
        Err(Error::Bug("UnitModel::loss is being written".into()))
    }

    /// `[T, V]` logits of every position, in the batch's own order; no graph, no dropout.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        let _ = batch;
        Err(Error::Bug("UnitModel::logits is being written".into()))
    }
}
