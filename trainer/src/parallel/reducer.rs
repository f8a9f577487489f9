//! Gradients of the ranks become one while backward still runs.

use std::collections::VecDeque;

use tch::Tensor;
use torch_ext::Work;

use super::Comm;
use crate::engine::{FlatBuffer, ParameterStore, Stage};
use crate::error::{Error, Result};

/// How many whole gradients may wait for the network where only slices of them are to stay.
const IN_FLIGHT: usize = 2;

/// Sums flat gradients over the ranks, each as soon as the last unit that adds into it is done.
///
/// Plain data parallelism sums whole gradients, and the first ZeRO stage leaves each rank its
/// slice of the sum; both do so once for all micro-batches. Where gradients are sharded, every
/// micro-batch's are reduced and added to the slice, and the whole is freed.
///
/// Buffers are reduced in one order, whatever a rank's batch: a text-only batch visits no vision
/// unit, and its rank gives zeros there, so that ranks with other batches never wait for it.
#[derive(Debug)]
pub struct GradientReducer<'a> {
    comm: &'a Comm,
    /// Buffers with the unit after which each is complete, the last unit first.
    order: Vec<(usize, usize)>,
    issued: VecDeque<Reduction>,
    next: usize,
}

/// A reduction under way.
#[derive(Debug)]
struct Reduction {
    work: Work,
    /// What it reads, and where the result goes: the slice and the buffer's own gradient.
    whole: Tensor,
    slice: Option<(Tensor, Tensor)>,
    /// The result is added to what earlier micro-batches left.
    adds: bool,
}

impl Reduction {
    fn finish(self, comm: &Comm) -> Result<()> {
        self.work.wait().map_err(|e| comm.lost(e))?;
        drop(self.whole);
        if let Some((slice, mut grad)) = self.slice {
            let _ = match self.adds {
                true => grad.f_add_(&slice)?,
                false => {
                    grad.f_copy_(&slice)?;
                    grad
                }
            };
        }
        Ok(())
    }
}

impl<'a> GradientReducer<'a> {
    /// For the backward passes of one optimizer step over all units of `store`.
    pub fn new(comm: &'a Comm, store: &ParameterStore) -> Self {
        let mut order: Vec<_> = store.first_users().into_iter().enumerate().collect();
        order.sort_by_key(|(buffer, unit)| (std::cmp::Reverse(*unit), *buffer));
        Self {
            comm,
            order,
            issued: VecDeque::new(),
            next: 0,
        }
    }

    /// Backward is done with `unit` and all after it: begins to reduce what is complete. `last`
    /// says that no micro-batch follows.
    pub fn done_with(&mut self, unit: usize, last: bool, store: &ParameterStore) -> Result<()> {
        if !last && !store.sharding().shards_gradients() {
            return Ok(());
        }
        while let Some((buffer, complete)) = self.order.get(self.next).copied()
            && complete >= unit
        {
            let buffer = store.buffers().get(buffer);
            let buffer = buffer.ok_or_else(|| Error::Bug("a buffer does not exist".into()))?;
            self.begin(buffer, store)?;
            self.next += 1;
        }
        Ok(())
    }

    fn begin(&mut self, buffer: &FlatBuffer, store: &ParameterStore) -> Result<()> {
        let sharding = store.sharding();
        if !sharding.is_sharded() {
            let whole = buffer.whole_grad()?;
            let work = self.comm.begin_sum(&whole)?;
            self.issue(work, whole, None, false);
            return Ok(());
        }
        let adds = sharding.stage >= Stage::Gradients;
        let whole = match adds {
            true => buffer.take_whole_grad()?,
            false => buffer.whole_grad()?,
        };
        let slice = buffer.grad.f_empty_like()?;
        let work = self.comm.begin_scatter(&slice, &whole)?;
        self.issue(
            work,
            whole,
            Some((slice, buffer.grad.shallow_clone())),
            adds,
        );
        match self.issued.len() > IN_FLIGHT {
            true => self.finish_oldest(),
            false => Ok(()),
        }
    }

    fn issue(
        &mut self,
        work: Option<Work>,
        whole: Tensor,
        slice: Option<(Tensor, Tensor)>,
        adds: bool,
    ) {
        self.issued.extend(work.map(|work| Reduction {
            work,
            whole,
            slice,
            adds,
        }));
    }

    fn finish_oldest(&mut self) -> Result<()> {
        let oldest = self.issued.pop_front();
        oldest.map_or(Ok(()), |oldest| oldest.finish(self.comm))
    }

    /// Backward of one micro-batch is over: reduces the rest of it and waits for all.
    pub fn finish_micro_batch(&mut self, last: bool, store: &ParameterStore) -> Result<()> {
        self.done_with(0, last, store)?;
        self.next = 0;
        while !self.issued.is_empty() {
            self.finish_oldest()?;
        }
        Ok(())
    }

    /// After the last micro-batch: agrees on which buffers were reached anywhere.
    pub fn finish(self, store: &mut ParameterStore) -> Result<()> {
        let touched: Vec<_> = store.buffers().iter().map(|b| b.touched).collect();
        let agreed = self.comm.any_of(&touched)?;
        for (buffer, touched) in store.buffers_mut().iter_mut().zip(agreed) {
            buffer.touched = touched;
        }
        Ok(())
    }
}
