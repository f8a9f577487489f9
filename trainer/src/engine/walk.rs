//! Walks the units forward, and back in reverse.

use std::cell::RefCell;

use tch::Tensor;

use super::parameters::{Gathering, Wholes};
use super::streams::{Slots, Streams};
use super::{
    KeyValueCache, ParameterStore, SideInputs, Unit, UnitContext, Weights, derive_seed, seeded,
};
use crate::error::Result;

/// Which units keep only their inputs and run again during backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recompute {
    pub vision: bool,
    pub language: bool,
}

/// Told after backward is done with a unit: all gradients of later units are in the store.
pub type UnitDone<'a> = dyn FnMut(usize, &ParameterStore) -> Result<()> + 'a;

/// One walk over the units with one batch.
pub(super) struct Walk<'a> {
    pub units: &'a [Box<dyn Unit>],
    pub store: &'a ParameterStore,
    pub side: &'a SideInputs,
    pub recompute: Recompute,
    /// Decides dropout; without it nothing is dropped and no graph is kept.
    pub seed: Option<u64>,
    /// While generating: what the units have already seen.
    pub cache: Option<&'a KeyValueCache>,
}

/// What backward needs of one unit.
struct Step {
    unit: usize,
    inputs: Vec<Tensor>,
    /// Absent if the unit is to run again.
    kept: Option<Run>,
}

/// A unit's graph.
struct Run {
    outputs: Vec<Tensor>,
    /// Looked-up rows of a trainable table.
    rows: Option<Tensor>,
    /// The leaves.
    weights: Weights,
    /// What was gathered for them; without memory between forward and backward where parameters
    /// are sharded or offloaded.
    wholes: Wholes,
}

/// The units that backward will visit, in forward order.
#[derive(Default)]
pub(super) struct Tape(Vec<Step>);

#[cfg(test)]
impl Tape {
    pub(super) fn units(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|step| step.unit)
    }
}

/// Visits units in an order, each with its buffers whole. Where other processes hold a part, the
/// next unit's are asked for before this one computes.
pub(super) fn visit(
    store: &ParameterStore,
    order: &[usize],
    begin: impl Fn(usize) -> Result<Gathering>,
    mut at: impl FnMut(usize, Wholes) -> Result<()>,
) -> Result<()> {
    let ahead = store.sharding().shards_parameters();
    let mut next = None;
    for (position, unit) in order.iter().copied().enumerate() {
        let gathering: Gathering = match next.take() {
            Some(gathering) => gathering,
            None => begin(unit)?,
        };
        if ahead && let Some(following) = order.get(position + 1) {
            next = Some(begin(*following)?);
        }
        at(unit, gathering.wait()?)?;
    }
    Ok(())
}

/// The places that say yes.
fn chosen(yes: &[bool]) -> Vec<usize> {
    let places = yes.iter().enumerate();
    places.filter_map(|(i, yes)| yes.then_some(i)).collect()
}

/// Takes part in a forward pass of the other processes without a batch of our own.
pub(super) fn accompany(units: &[Box<dyn Unit>], store: &ParameterStore) -> Result<()> {
    let order = chosen(&store.agree(vec![false; units.len()])?);
    let begin = |unit: usize| begin(units, store, unit);
    visit(store, &order, begin, |_, _| Ok(()))
}

fn begin(units: &[Box<dyn Unit>], store: &ParameterStore, unit: usize) -> Result<Gathering> {
    store.begin_gather(unit, units.get(unit).and_then(|unit| unit.lookup()))
}

impl Walk<'_> {
    /// Runs every active unit; `streams` ends with what they wrote. Units that are active
    /// elsewhere alone are gathered with the others.
    pub(super) fn forward(&self, streams: &mut Streams) -> Result<Tape> {
        let active: Vec<_> = self.units.iter().map(|u| u.active(self.side)).collect();
        let order = chosen(&self.store.agree(active)?);
        let mut tape = Tape::default();
        let begin = |unit: usize| begin(self.units, self.store, unit);
        visit(self.store, &order, begin, |index, wholes| {
            match self.units.get(index).filter(|u| u.active(self.side)) {
                Some(unit) => self.forward_unit(index, unit.as_ref(), wholes, streams, &mut tape),
                None => Ok(()),
            }
        })?;
        Ok(tape)
    }

    fn forward_unit(
        &self,
        index: usize,
        unit: &dyn Unit,
        wholes: Wholes,
        streams: &mut Streams,
        tape: &mut Tape,
    ) -> Result<()> {
        let reads = unit.reads(self.side);
        let inputs = streams.read(reads)?;
        let fed = reads.iter().any(|name| streams.tracked(*name));
        let tracked = self.seed.is_some() && (fed || self.store.is_trainable(index));
        let keep = tracked && !self.recomputes(unit);
        let run = self.run(index, unit, wholes, &inputs, keep)?;
        let outputs = run
            .outputs
            .iter()
            .map(Tensor::f_detach)
            .collect::<Result<_, _>>()?;
        streams.write(unit.writes(), outputs, tracked);
        if keep && !self.store.sharding().keeps_parameters() {
            run.wholes.release()?;
        }
        if tracked {
            tape.0.push(Step {
                unit: index,
                inputs,
                kept: keep.then_some(run),
            });
        }
        Ok(())
    }

    fn recomputes(&self, unit: &dyn Unit) -> bool {
        use super::Tower::{Language, Projector, Vision};
        match unit.parameters().first().map(|p| p.tower) {
            Some(Vision | Projector) => self.recompute.vision,
            Some(Language) => self.recompute.language,
            None => false,
        }
    }

    /// One forward through a unit, identical whenever it is repeated.
    fn run(
        &self,
        index: usize,
        unit: &dyn Unit,
        wholes: Wholes,
        inputs: &[Tensor],
        graph: bool,
    ) -> Result<Run> {
        let seed = self.seed.filter(|_| unit.random());
        let _generator = seed.map(|seed| seeded(derive_seed(&[seed, index as u64])));
        let weights = self.store.weights(index, &wholes, graph, unit.lookup())?;
        let mut inputs: Vec<_> = inputs.iter().map(Tensor::shallow_clone).collect();
        let mut rows = None;
        if let Some(table) = unit.lookup() {
            let ids_t = &self.side.input_ids_t;
            let looked_up = self.store.look_up(index, table, &wholes, ids_t, graph)?;
            rows = looked_up.requires_grad().then(|| looked_up.shallow_clone());
            inputs.push(looked_up);
        }
        let context = UnitContext {
            side: self.side,
            training: self.seed.is_some(),
            cache: self.cache.map(|cache| cache.unit(index)),
        };
        let forward = || unit.forward(&weights, &inputs, &context);
        let outputs = if graph {
            tch::with_grad(forward)?
        } else {
            tch::no_grad(forward)?
        };
        Ok(Run {
            outputs,
            rows,
            weights,
            wholes,
        })
    }

    /// Runs the taped units in reverse, from the gradients in `slots`, and tells `done` after
    /// each. Returns the units whose parameters were reached.
    pub(super) fn backward(
        &self,
        tape: Tape,
        slots: &mut Slots,
        done: &mut UnitDone,
    ) -> Result<Vec<usize>> {
        let mut taped = vec![false; self.units.len()];
        let mut steps: Vec<_> = self.units.iter().map(|_| RefCell::new(None)).collect();
        for step in tape.0 {
            if let (Some(taped), Some(slot)) = (taped.get_mut(step.unit), steps.get_mut(step.unit))
            {
                *taped = true;
                *slot.get_mut() = Some(step);
            }
        }
        let mut order = chosen(&self.store.agree(taped)?);
        order.reverse();
        let step_of = |unit: usize| steps.get(unit).and_then(|slot| slot.borrow_mut().take());
        let begin = |unit: usize| self.begin_backward(unit, steps.get(unit));
        let mut reached = Vec::new();
        visit(self.store, &order, begin, |index, wholes| {
            if let Some(step) = step_of(index)
                && self.backward_unit(step, wholes, slots)?
            {
                reached.push(index);
            }
            done(index, self.store)
        })?;
        Ok(reached)
    }

    /// Begins to gather what a unit's backward needs.
    fn begin_backward(
        &self,
        unit: usize,
        step: Option<&RefCell<Option<Step>>>,
    ) -> Result<Gathering> {
        let step = step.map(RefCell::borrow);
        let kept = step.as_ref().and_then(|step| step.as_ref()?.kept.as_ref());
        match kept {
            None => begin(self.units, self.store, unit),
            Some(_) if self.store.sharding().keeps_parameters() => Ok(Gathering::default()),
            Some(run) => self.store.begin_refill(&run.wholes),
        }
    }

    fn backward_unit(&self, step: Step, wholes: Wholes, slots: &mut Slots) -> Result<bool> {
        let Some(unit) = self.units.get(step.unit).map(AsRef::as_ref) else {
            return Ok(false);
        };
        let grads: Vec<_> = unit.writes().iter().map(|name| slots.take(*name)).collect();
        if grads.iter().all(Option::is_none) {
            return Ok(false);
        }
        let run = match step.kept {
            Some(run) => run,
            None => self.run(step.unit, unit, wholes, &step.inputs, true)?,
        };
        self.store.attach_grads(step.unit, &run.weights)?;
        let pairs: Vec<_> = run
            .outputs
            .iter()
            .zip(&grads)
            .filter_map(|(o, g)| g.as_ref().map(|g| (o, g)))
            .collect();
        torch_ext::backward(&pairs)?;
        for (name, input) in unit.reads(self.side).iter().zip(&step.inputs) {
            slots.add(*name, defined_grad(input)?)?;
        }
        if let (Some(table), Some(rows)) = (unit.lookup(), &run.rows)
            && let Some(grad) = defined_grad(rows)?
        {
            self.store
                .add_row_grads(step.unit, table, &self.side.input_ids_t, &grad)?;
        }
        Ok(true)
    }
}

/// A leaf's gradient, if backward reached it.
fn defined_grad(leaf: &Tensor) -> Result<Option<Tensor>> {
    if !leaf.requires_grad() {
        return Ok(None);
    }
    let grad = leaf.f_grad()?;
    Ok(grad.defined().then_some(grad))
}
