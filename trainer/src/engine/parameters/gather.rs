//! From buffers to the weights a unit computes with, and back to its gradients.

use tch::Tensor;

use super::flat::whole_of;
use super::{ParameterStore, Pending, Place};
use crate::engine::{Param, Weights};
use crate::error::{Error, Result};

/// A buffer that is made whole for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffer {
    Trainable(usize),
    Frozen(usize),
}

/// A unit's buffers, `[N]` each in the compute kind, as far as they are not whole anyway.
#[derive(Debug, Default)]
pub(crate) struct Wholes(Vec<(Buffer, Tensor)>);

/// Buffers that are being made whole.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    wholes: Wholes,
    pending: Vec<Box<dyn Pending>>,
}

impl Gathering {
    pub fn wait(self) -> Result<Wholes> {
        self.pending.into_iter().try_for_each(Pending::wait)?;
        Ok(self.wholes)
    }
}

impl Wholes {
    fn find(&self, buffer: Buffer) -> Option<&Tensor> {
        let found = self.0.iter().find(|(other, _)| *other == buffer);
        found.map(|(_, whole)| whole)
    }

    /// The same tensors, to be filled again.
    pub fn shallow_clone(&self) -> Self {
        let all = self.0.iter().map(|(b, whole)| (*b, whole.shallow_clone()));
        Self(all.collect())
    }

    /// Gives the memory back; graphs over them stay.
    pub fn release(&self) -> Result<()> {
        let mut all = self.0.iter();
        Ok(all.try_for_each(|(_, whole)| torch_ext::release_storage(whole))?)
    }
}

impl ParameterStore {
    /// Whether the unit owns or borrows anything trainable.
    pub(crate) fn is_trainable(&self, unit: usize) -> bool {
        self.of_unit(unit)
            .iter()
            .any(|place| matches!(place, Place::Trainable { .. }))
    }

    fn of_unit(&self, unit: usize) -> &[Place] {
        self.units.get(unit).map_or(&[], Vec::as_slice)
    }

    /// For each place whether any process says yes: what all of them must take part in.
    pub(crate) fn agree(&self, own: Vec<bool>) -> Result<Vec<bool>> {
        match self.sharding.shards_parameters() {
            true => self.peers()?.any_of(&own),
            false => Ok(own),
        }
    }

    /// Begins to make the unit's buffers whole. A `lookup` table that is whole in its storage
    /// kind is left out: only rows of it will be used.
    pub(crate) fn begin_gather(&self, unit: usize, lookup: Option<Param>) -> Result<Gathering> {
        let mut gathering = Gathering::default();
        for (index, place) in self.of_unit(unit).iter().enumerate() {
            let only_rows = lookup == Some(Param(index)) && self.rows_at_hand();
            let Some(buffer) = self.to_gather(*place).filter(|_| !only_rows) else {
                continue;
            };
            if gathering.wholes.find(buffer).is_none() {
                let whole = whole_of(self.part(buffer)?.0, self.precision.compute(), self.device)?;
                gathering.pending.extend(self.fill(buffer, &whole)?);
                gathering.wholes.0.push((buffer, whole));
            }
        }
        Ok(gathering)
    }

    /// Begins to make buffers whole again that were released.
    pub(crate) fn begin_refill(&self, wholes: &Wholes) -> Result<Gathering> {
        let mut gathering = Gathering {
            wholes: wholes.shallow_clone(),
            pending: Vec::new(),
        };
        for (buffer, whole) in &wholes.0 {
            torch_ext::restore_storage(whole)?;
            gathering.pending.extend(self.fill(*buffer, whole)?);
        }
        Ok(gathering)
    }

    /// The unit's weights at once.
    pub(crate) fn gather(&self, unit: usize, graph: bool) -> Result<Weights> {
        let wholes = self.begin_gather(unit, None)?.wait()?;
        self.weights(unit, &wholes, graph, None)
    }

    /// The unit's weights in the compute kind. With `graph`, trainable ones are leaves.
    pub(crate) fn weights(
        &self,
        unit: usize,
        wholes: &Wholes,
        graph: bool,
        lookup: Option<Param>,
    ) -> Result<Weights> {
        let mut weights = Vec::new();
        for (index, place) in self.of_unit(unit).iter().enumerate() {
            let weight = self.weight(*place, wholes)?;
            let is_table = lookup == Some(Param(index));
            weights.push(match place {
                Place::Trainable { .. } if graph && !is_table => {
                    own_version(&weight)?.f_set_requires_grad(true)?
                }
                Place::FrozenSpan { .. } if graph => own_version(&weight)?,
                _ => weight,
            });
        }
        Ok(Weights(weights))
    }

    /// Makes the flat gradient's views the `.grad` of a unit's leaves; just before backward, so
    /// that a gradient is whole no longer than it must be.
    pub(crate) fn attach_grads(&self, unit: usize, weights: &Weights) -> Result<()> {
        for (index, weight) in weights.0.iter().enumerate() {
            if weight.requires_grad()
                && let Some(grad) = self.grad_view(unit, Param(index))?
            {
                torch_ext::set_grad(weight, Some(&grad))?;
            }
        }
        Ok(())
    }

    /// Rows `ids_t` of a unit's table `[V, H]`, `[T, H]` in the compute kind; a leaf of its own
    /// if `graph` and the table is trainable.
    pub(crate) fn look_up(
        &self,
        unit: usize,
        table: Param,
        wholes: &Wholes,
        ids_t: &Tensor,
        graph: bool,
    ) -> Result<Tensor> {
        let place = *self.of_unit(unit).get(table.0).ok_or_else(misplaced)?;
        let weight = self.weight(place, wholes)?.f_detach()?;
        let rows = weight
            .f_index_select(0, ids_t)?
            .f_to_kind(self.precision.compute())?;
        let trainable = matches!(place, Place::Trainable { .. });
        if graph && trainable {
            Ok(rows.f_set_requires_grad(true)?)
        } else {
            Ok(rows)
        }
    }

    /// Adds `[T, H]` row gradients to the table's `[V, H]` gradient, without a dense temporary.
    pub(crate) fn add_row_grads(
        &self,
        unit: usize,
        table: Param,
        ids_t: &Tensor,
        grad_th: &Tensor,
    ) -> Result<()> {
        if let Some(mut grad) = self.grad_view(unit, table)? {
            let rows = grad_th.f_to_kind(grad.kind())?;
            let _ = grad.f_index_add_(0, ids_t, &rows)?;
        }
        Ok(())
    }

    /// The whole gradient's view of a unit's parameter; `None` if it is frozen.
    pub(crate) fn grad_view(&self, unit: usize, param: Param) -> Result<Option<Tensor>> {
        match *self.of_unit(unit).get(param.0).ok_or_else(misplaced)? {
            Place::Frozen(_) | Place::FrozenSpan { .. } => Ok(None),
            Place::Trainable { buffer, span } => {
                let flat = self.buffers.get(buffer).ok_or_else(misplaced)?;
                let span = flat.spans.get(span).ok_or_else(misplaced)?;
                span.view(&flat.whole_grad()?).map(Some)
            }
        }
    }

    /// Marks every buffer that the unit owns or borrows from as reached by backward.
    pub(crate) fn touch(&mut self, unit: usize) {
        for place in self.units.get(unit).map_or(&[][..], Vec::as_slice) {
            if let Place::Trainable { buffer, .. } = place
                && let Some(flat) = self.buffers.get_mut(*buffer)
            {
                flat.touched = true;
            }
        }
    }

    /// Whether a table's rows can be read from where the optimizer keeps it.
    fn rows_at_hand(&self) -> bool {
        self.sharding.keeps_parameters()
    }

    fn to_gather(&self, place: Place) -> Option<Buffer> {
        match place {
            Place::Frozen(_) => None,
            Place::FrozenSpan { buffer, .. } => Some(Buffer::Frozen(buffer)),
            Place::Trainable { buffer, .. } => {
                let kept = self.buffers.get(buffer).is_some_and(|b| b.whole.is_some());
                (!kept).then_some(Buffer::Trainable(buffer))
            }
        }
    }

    /// A buffer's N, our part of it, and where that begins.
    fn part(&self, buffer: Buffer) -> Result<(i64, &Tensor, i64)> {
        let found = match buffer {
            Buffer::Trainable(index) => {
                let found = self.buffers.get(index);
                found.map(|b| (b.length, &b.weights, b.owned.start))
            }
            Buffer::Frozen(index) => {
                let found = self.frozen_buffers.get(index);
                found.map(|b| (b.length, &b.weights, b.owned.start))
            }
        };
        found.ok_or_else(misplaced)
    }

    /// Puts our part in its place and begins to ask the others for theirs.
    fn fill(&self, buffer: Buffer, whole: &Tensor) -> Result<Option<Box<dyn Pending>>> {
        let (length, part, begin) = self.part(buffer)?;
        let owned = part.size1()?;
        // Autograd must not see it as a change of what a kept graph has saved.
        let mut own = whole.f_data()?.f_narrow(0, begin, owned)?;
        own.f_copy_(part)?;
        match owned == length {
            true => Ok(None),
            false => self.peers()?.begin_gather(whole, &own).map(Some),
        }
    }

    fn weight(&self, place: Place, wholes: &Wholes) -> Result<Tensor> {
        let (buffer, span) = match place {
            Place::Frozen(index) => {
                let frozen = self.frozen.get(index).ok_or_else(misplaced)?;
                return Ok(frozen.weight.shallow_clone());
            }
            Place::FrozenSpan { buffer, span } => {
                let spans = self.frozen_buffers.get(buffer).map(|b| &b.spans);
                let span = spans.and_then(|spans| spans.get(span));
                let whole = wholes.find(Buffer::Frozen(buffer)).ok_or_else(misplaced)?;
                return span.ok_or_else(misplaced)?.view(whole);
            }
            Place::Trainable { buffer, span } => (buffer, span),
        };
        let flat = self.buffers.get(buffer).ok_or_else(misplaced)?;
        let span = flat.spans.get(span).ok_or_else(misplaced)?;
        let gathered = wholes.find(Buffer::Trainable(buffer));
        // Without either it is a table of which rows are looked up.
        let whole = flat.whole.as_ref().or(gathered).unwrap_or(&flat.weights);
        span.view(whole)
    }
}

/// The same memory with a version of its own: refilling it is no change to a graph.
fn own_version(weight: &Tensor) -> Result<Tensor> {
    Ok(weight.f_data()?)
}

fn misplaced() -> Error {
    Error::Bug("a parameter's place does not exist".to_owned())
}
