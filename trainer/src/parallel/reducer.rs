//! Gradients of the ranks become one while backward still runs.

use torch_ext::Work;

use super::Comm;
use super::comm::lost;
use crate::engine::ParameterStore;
use crate::error::Result;

/// Sums flat gradients over the ranks, each as soon as the last unit that adds into it is done.
///
/// Buffers are reduced in one order, whatever a rank's batch: a text-only batch visits no vision
/// unit, and its rank gives zeros there, so that ranks with other batches never wait for it.
#[derive(Debug)]
pub struct GradientReducer<'a> {
    comm: &'a Comm,
    /// Buffers with the unit after which each is complete, the last unit first.
    order: Vec<(usize, usize)>,
    issued: Vec<Work>,
    next: usize,
}

impl<'a> GradientReducer<'a> {
    /// For one backward pass over all units of `store`.
    pub fn new(comm: &'a Comm, store: &ParameterStore) -> Self {
        let mut order: Vec<_> = store.first_users().into_iter().enumerate().collect();
        order.sort_by_key(|(buffer, unit)| (std::cmp::Reverse(*unit), *buffer));
        Self {
            comm,
            order,
            issued: Vec::new(),
            next: 0,
        }
    }

    /// Backward is done with `unit` and all after it: begins to reduce what is complete.
    pub fn done_with(&mut self, unit: usize, store: &ParameterStore) -> Result<()> {
        while let Some((buffer, complete)) = self.order.get(self.next).copied()
            && complete >= unit
        {
            if let Some(buffer) = store.buffers().get(buffer) {
                self.issued.extend(self.comm.begin_sum(&buffer.grad)?);
            }
            self.next += 1;
        }
        Ok(())
    }

    /// Reduces the rest, waits for all, and agrees on which buffers were reached anywhere.
    pub fn finish(mut self, store: &mut ParameterStore) -> Result<()> {
        self.done_with(0, store)?;
        for work in self.issued {
            work.wait().map_err(lost)?;
        }
        let touched: Vec<_> = store.buffers().iter().map(|b| b.touched).collect();
        let agreed = self.comm.any_of(&touched)?;
        for (buffer, touched) in store.buffers_mut().iter_mut().zip(agreed) {
            buffer.touched = touched;
        }
        Ok(())
    }
}
