//! What tensors the ranks exchange: how often and how much.

use std::sync::{Mutex, PoisonError};

use tch::Tensor;
use torch_ext::Collective;

/// All collectives of one sort so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    pub collective: Collective,
    pub calls: u64,
    /// Bytes of the whole tensors (not of one rank's slices); what a rank sends and receives
    /// follows from the algorithm: a ring moves `(W - 1) / W` of them once for an all-gather or
    /// a reduce-scatter, and twice for an all-reduce.
    pub bytes: u64,
}

/// A counter of exchanges.
#[derive(Debug, Default)]
pub(super) struct Traffic(Mutex<Vec<Exchange>>);

impl Traffic {
    /// Notes a collective over `whole`.
    pub fn note(&self, collective: Collective, whole: &Tensor) {
        let bytes = (whole.numel() * whole.kind().elt_size_in_bytes()) as u64;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.iter_mut().find(|e| e.collective == collective) {
            Some(exchange) => {
                exchange.calls += 1;
                exchange.bytes += bytes;
            }
            None => all.push(Exchange {
                collective,
                calls: 1,
                bytes,
            }),
        }
    }

    pub fn all(&self) -> Vec<Exchange> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
