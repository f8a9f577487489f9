//! A model assembled from units, as `train` and `commands` see it.

mod inference;

use tch::{Device, Tensor};

use super::head::{ChunkedLoss, Head};
use super::parameters::{ParameterStore, StoreOptions, TensorSource};
use super::streams::{Slots, Streams};
use super::walk::{Recompute, UnitDone, Walk};
use super::{Precision, Sharding, SideInputs, Stream, Unit, UnitContext, Weights};
use crate::batch::{Batch, IGNORE_INDEX};
use crate::error::Result;

/// Computes a family's [`SideInputs`] for a batch.
pub trait PrepareBatch: Send {
    /// Floating-point side inputs come in `precision`'s compute kind, all on `device`.
    fn prepare(&self, batch: &Batch, precision: Precision, device: Device) -> Result<SideInputs>;
}

/// What a family hands over: units in execution order, head, side inputs.
pub struct Assembly {
    pub units: Vec<Box<dyn Unit>>,
    pub head: Head,
    pub prepare: Box<dyn PrepareBatch>,
}

/// How a model runs.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    pub precision: Precision,
    pub device: Device,
    pub recompute: Recompute,
    /// Supervised rows whose logits exist at once; `None` chooses by vocabulary size.
    pub loss_chunk: Option<i64>,
    /// Seeds parameters that the checkpoint does not have (LoRA).
    pub seed: u64,
}

/// A batch's loss.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
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
    options: EngineOptions,
}

/// The supervised rows of a batch: `[S]` row indices and `[S]` labels.
struct Supervised {
    rows_s: Tensor,
    labels_s: Tensor,
}

/// Logits of one chunk take at most this many bytes (float32) unless a chunk is asked for.
const LOGIT_BYTES: i64 = 256 << 20;

impl UnitModel {
    /// Reads the parameters from `source` and keeps them as `options` say, whole.
    pub fn new(
        assembly: Assembly,
        options: EngineOptions,
        source: &dyn TensorSource,
    ) -> Result<Self> {
        Self::sharded(assembly, options, Sharding::default(), source)
    }

    /// As [`Self::new`], and keeps of them what `sharding` says.
    pub fn sharded(
        assembly: Assembly,
        options: EngineOptions,
        sharding: Sharding,
        source: &dyn TensorSource,
    ) -> Result<Self> {
        let Assembly {
            units,
            head,
            prepare,
        } = assembly;
        let mut places: Vec<_> = units
            .iter()
            .map(|u| (u.parameters(), u.borrows()))
            .collect();
        places.push((head.norm.parameters(), head.norm.borrows()));
        places.push(head.projection.places());
        let EngineOptions {
            precision,
            device,
            seed,
            ..
        } = options;
        let store = ParameterStore::build(
            &places,
            StoreOptions {
                precision,
                device,
                seed,
            },
            sharding,
            source,
        )?;
        Ok(Self {
            units,
            head,
            prepare,
            store,
            options,
        })
    }

    pub fn parameters(&self) -> &ParameterStore {
        &self.store
    }

    pub fn parameters_mut(&mut self) -> &mut ParameterStore {
        &mut self.store
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Names of the units in execution order, the head's two last; indices as in
    /// [`super::FlatBuffer::unit`].
    pub fn unit_names(&self) -> Vec<&str> {
        let units = self.units.iter().map(|unit| unit.name());
        units.chain([self.head.norm.name(), "head"]).collect()
    }

    /// Adds the gradient of `loss_sum / normaliser` to the flat gradients. `normaliser` is the
    /// number of supervised tokens of the whole optimizer step; `seed` decides dropout.
    pub fn forward_backward(
        &mut self,
        batch: &Batch,
        normaliser: f64,
        seed: u64,
    ) -> Result<LossOutput> {
        self.forward_backward_with(batch, normaliser, seed, &mut |_, _| Ok(()))
    }

    /// Like [`Self::forward_backward`], and tells `done` as backward leaves each unit.
    pub fn forward_backward_with(
        &mut self,
        batch: &Batch,
        normaliser: f64,
        seed: u64,
        done: &mut UnitDone,
    ) -> Result<LossOutput> {
        let _guard = tch::no_grad_guard();
        let (loss, reached) = self.step(batch, normaliser, seed, done)?;
        for unit in reached {
            self.store.touch(unit);
        }
        Ok(loss)
    }

    fn step(
        &self,
        batch: &Batch,
        normaliser: f64,
        seed: u64,
        done: &mut UnitDone,
    ) -> Result<(LossOutput, Vec<usize>)> {
        let side = self
            .prepare
            .prepare(batch, self.options.precision, self.options.device)?;
        let supervised = self.supervised(batch, &side)?;
        if !self.agree(supervised.is_some())? {
            return Ok((LossOutput::default(), Vec::new()));
        }
        let walk = self.walk(&side, Some(seed));
        let mut streams = Streams::default();
        let tape = walk.forward(&mut streams)?;
        let tracked = streams.tracked(Stream::Hidden);
        let hidden_th = streams.take(Stream::Hidden)?;
        drop(streams);

        let mut slots = Slots::default();
        let (loss, mut reached) = match &supervised {
            Some(supervised) => {
                let hidden = (&hidden_th, tracked);
                self.head_step(&side, hidden, supervised, normaliser, &mut slots)?
            }
            None => {
                self.accompany_head()?;
                (LossOutput::default(), Vec::new())
            }
        };
        drop(hidden_th);
        reached.extend(walk.backward(tape, &mut slots, done)?);
        Ok((loss, reached))
    }

    /// Whether any process says yes; where parameters are sharded, all must then take part.
    fn agree(&self, own: bool) -> Result<bool> {
        Ok(self.store.agree(vec![own])?.contains(&true))
    }

    /// Takes part in the others' head without rows of our own.
    fn accompany_head(&self) -> Result<()> {
        let units = [self.units.len(), self.units.len() + 1];
        units
            .into_iter()
            .try_for_each(|unit| self.store.gather(unit, false).map(drop))
    }

    /// Head and loss, forward and backward; fills the slot of `Hidden` if it is tracked.
    fn head_step(
        &self,
        side: &SideInputs,
        (hidden_th, tracked): (&Tensor, bool),
        supervised: &Supervised,
        normaliser: f64,
        slots: &mut Slots,
    ) -> Result<(LossOutput, Vec<usize>)> {
        let norm_unit = self.units.len();
        let rows_sh = hidden_th.f_index_select(0, &supervised.rows_s)?;
        let rows_sh = rows_sh.f_set_requires_grad(tracked)?;
        let graph = tracked || self.store.is_trainable(norm_unit);
        let (normed_sh, weights) = self.norm(side, &rows_sh, graph)?;
        let (loss, grad_sh) = self.chunked_loss().loss_and_grad(
            &normed_sh.f_detach()?,
            &supervised.labels_s,
            normaliser,
            graph,
        )?;
        let mut reached = vec![norm_unit + 1];
        if let Some(grad_sh) = grad_sh {
            self.store.attach_grads(norm_unit, &weights)?;
            torch_ext::backward(&[(&normed_sh, &grad_sh)])?;
            reached.push(norm_unit);
        }
        if tracked {
            let zeros = hidden_th.f_zeros_like()?;
            let grad = zeros.f_index_copy(0, &supervised.rows_s, &rows_sh.f_grad()?)?;
            slots.add(Stream::Hidden, Some(grad))?;
        }
        let loss_sum = f64::try_from(loss)?;
        Ok((
            LossOutput {
                loss_sum,
                supervised: supervised.labels_s.size1()?,
            },
            reached,
        ))
    }

    fn walk<'a>(&'a self, side: &'a SideInputs, seed: Option<u64>) -> Walk<'a> {
        let recompute = self.options.recompute;
        Walk {
            units: &self.units,
            store: &self.store,
            side,
            recompute,
            seed,
            cache: None,
        }
    }

    /// The final norm's output and its leaves.
    fn norm(&self, side: &SideInputs, rows: &Tensor, graph: bool) -> Result<(Tensor, Weights)> {
        let weights = self.store.gather(self.units.len(), graph)?;
        let inputs = [rows.shallow_clone()];
        let context = UnitContext {
            side,
            training: graph,
            cache: None,
        };
        let forward = || self.head.norm.forward(&weights, &inputs, &context);
        let outputs = if graph {
            tch::with_grad(forward)?
        } else {
            forward()?
        };
        let missing = || crate::error::Error::Bug("the final norm returned nothing".to_owned());
        let output = outputs.into_iter().next().ok_or_else(missing)?;
        Ok((output, weights))
    }

    fn chunked_loss(&self) -> ChunkedLoss<'_> {
        let unit = self.units.len() + 1;
        let vocabulary = self.head.vocabulary(&self.units);
        let chunk = self
            .options
            .loss_chunk
            .unwrap_or(LOGIT_BYTES / 4 / vocabulary.max(1));
        ChunkedLoss {
            store: &self.store,
            unit,
            chunk: chunk.max(1),
        }
    }

    /// `None` if no position is supervised.
    fn supervised(&self, batch: &Batch, side: &SideInputs) -> Result<Option<Supervised>> {
        let mut labels_t = batch.labels_t.f_to_device(self.options.device)?;
        if let Some(order_t) = &side.order_t {
            labels_t = labels_t.f_index_select(0, order_t)?;
        }
        let rows_s = labels_t.f_ne(IGNORE_INDEX)?.f_nonzero()?.f_squeeze_dim(1)?;
        if rows_s.numel() == 0 {
            return Ok(None);
        }
        let labels_s = labels_t.f_index_select(0, &rows_s)?;
        Ok(Some(Supervised { rows_s, labels_s }))
    }

    /// Names of the units that backward would visit.
    #[cfg(test)]
    pub(super) fn taped_units(&self, batch: &Batch) -> Result<Vec<&str>> {
        let _guard = tch::no_grad_guard();
        let side = self
            .prepare
            .prepare(batch, self.options.precision, self.options.device)?;
        let tape = self.walk(&side, Some(0)).forward(&mut Streams::default())?;
        Ok(tape
            .units()
            .filter_map(|i| self.units.get(i))
            .map(|unit| unit.name())
            .collect())
    }
}
