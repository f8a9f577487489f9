//! From buffers to the weights a unit computes with, and back to its gradients.

use tch::Tensor;

use super::{FlatBuffer, ParameterStore, Place};
use crate::engine::{Param, Weights};
use crate::error::{Error, Result};

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

    /// The unit's weights in the compute kind. With `graph`, trainable ones are leaves whose
    /// `.grad` lies in the flat gradient. `lookup` is left in its storage kind: only rows of it
    /// will be used.
    pub(crate) fn gather(
        &self,
        unit: usize,
        graph: bool,
        lookup: Option<Param>,
    ) -> Result<Weights> {
        let mut casts = Casts::default();
        let mut weights = Vec::new();
        for (index, place) in self.of_unit(unit).iter().enumerate() {
            let skip = lookup == Some(Param(index));
            weights.push(self.weight(*place, graph, skip, &mut casts)?);
        }
        Ok(Weights(weights))
    }

    fn weight(&self, place: Place, graph: bool, raw: bool, casts: &mut Casts) -> Result<Tensor> {
        let (buffer, span) = match place {
            Place::Frozen(index) => {
                let frozen = self.frozen.get(index).ok_or_else(misplaced)?;
                return Ok(frozen.weight.shallow_clone());
            }
            Place::Trainable { buffer, span } => (buffer, span),
        };
        let flat = self.buffers.get(buffer).ok_or_else(misplaced)?;
        if let Some(leaf) = flat.leaves.get(span) {
            return Ok(leaf.shallow_clone());
        }
        let span = flat.spans.get(span).ok_or_else(misplaced)?;
        if raw {
            return span.view(&flat.weights);
        }
        let leaf = span.view(casts.of(buffer, flat, self.precision.compute())?)?;
        if graph {
            let leaf = leaf.f_detach()?.f_set_requires_grad(true)?;
            torch_ext::set_grad(&leaf, Some(&span.view(&flat.grad)?))?;
            return Ok(leaf);
        }
        Ok(leaf)
    }

    /// Rows `ids_t` of a unit's table `[V, H]`, `[T, H]` in the compute kind; a leaf of its own
    /// if `graph` and the table is trainable.
    pub(crate) fn look_up(
        &self,
        unit: usize,
        table: Param,
        ids_t: &Tensor,
        graph: bool,
    ) -> Result<Tensor> {
        let place = *self.of_unit(unit).get(table.0).ok_or_else(misplaced)?;
        let weight = self
            .weight(place, false, true, &mut Casts::default())?
            .f_detach()?;
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

    /// The flat gradient's view of a unit's parameter; `None` if it is frozen.
    pub(crate) fn grad_view(&self, unit: usize, param: Param) -> Result<Option<Tensor>> {
        match *self.of_unit(unit).get(param.0).ok_or_else(misplaced)? {
            Place::Frozen(_) => Ok(None),
            Place::Trainable { buffer, span } => {
                let flat = self.buffers.get(buffer).ok_or_else(misplaced)?;
                let span = flat.spans.get(span).ok_or_else(misplaced)?;
                Ok(Some(span.view(&flat.grad)?))
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
}

/// Compute-kind copies of flat buffers made during one gather, one cast per buffer.
#[derive(Default)]
struct Casts(Vec<(usize, Tensor)>);

impl Casts {
    fn of(&mut self, buffer: usize, flat: &FlatBuffer, kind: tch::Kind) -> Result<&Tensor> {
        let index = match self.0.iter().position(|(b, _)| *b == buffer) {
            Some(index) => index,
            None => {
                self.0.push((buffer, flat.weights.f_to_kind(kind)?));
                self.0.len() - 1
            }
        };
        self.0
            .get(index)
            .map(|(_, cast)| cast)
            .ok_or_else(misplaced)
    }
}

fn misplaced() -> Error {
    Error::Bug("a parameter's place does not exist".to_owned())
}
