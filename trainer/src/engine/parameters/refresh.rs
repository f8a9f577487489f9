//! After the owners have updated their parts: whole weights follow.

use super::{ParameterStore, Pending};
use crate::error::{Error, Result};

impl ParameterStore {
    /// Makes the whole weights what the owners made of them; every process calls it after each
    /// update. `all` takes in buffers that no gradient reached, as after loading a checkpoint.
    pub fn refresh(&mut self, all: bool) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut pending: Vec<Box<dyn Pending>> = Vec::new();
        for buffer in self.buffers.iter().filter(|b| all || b.touched) {
            let Some(whole) = &buffer.whole else {
                continue;
            };
            let mut own = buffer.own_part(whole)?;
            if own.data_ptr() != buffer.weights.data_ptr() {
                own.f_copy_(&buffer.weights)?;
            }
            if self.sharding.is_sharded() {
                pending.push(self.peers()?.begin_gather(whole, &own)?);
            }
        }
        pending.into_iter().try_for_each(Pending::wait)
    }

    pub(super) fn peers(&self) -> Result<&dyn super::Peers> {
        let peers = self.sharding.peers.as_deref();
        peers.ok_or_else(|| Error::Bug("parameters are sharded, but nobody has the rest".into()))
    }
}
