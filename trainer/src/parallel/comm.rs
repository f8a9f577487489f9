//! What ranks agree on.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use torch_ext::{ProcessGroup, Reduction, Store, Work};

use super::{Rank, Rendezvous};
use crate::error::{Error, Result};

/// How the processes of a run talk to each other. Every rank makes the same calls in the same
/// order; a rank that cannot is seen by the others as a lost peer.
#[derive(Debug, Clone, Default)]
pub enum Comm {
    /// One process: every agreement is with itself.
    #[default]
    Solo,
    Group(Arc<Peers>),
}

/// The connected processes of a run.
#[derive(Debug)]
pub struct Peers {
    // Before the store: a group still uses it when it is dropped.
    group: ProcessGroup,
    rank: Rank,
    device: Device,
    _store: Store,
}

impl Comm {
    /// Meets the other processes: over NCCL if `device` is a GPU, else over Gloo.
    pub fn connect(rank: Rank, rendezvous: &Rendezvous, device: Device) -> Result<Self> {
        if rank.world_size == 1 {
            return Ok(Self::Solo);
        }
        let Rendezvous {
            serve,
            host,
            port,
            timeout,
            ..
        } = rendezvous;
        let store = match *serve {
            true => Store::serve(*port, *timeout),
            false => Store::connect(host, *port, *timeout),
        };
        let store = store.map_err(lost)?;
        let group = connect(&store, rank, rendezvous, device).map_err(lost)?;
        let peers = Peers {
            group,
            rank,
            device,
            _store: store,
        };
        Ok(Self::Group(Arc::new(peers)))
    }

    /// This process's place.
    pub fn rank(&self) -> Rank {
        match self {
            Self::Solo => Rank::ONLY,
            Self::Group(peers) => peers.rank,
        }
    }

    /// Sums over all ranks, the same on each. Whole numbers are exact up to 2^53.
    pub fn sum<const N: usize>(&self, own: [f64; N]) -> Result<[f64; N]> {
        let summed = self.reduce(&own, Reduction::Sum)?;
        summed
            .try_into()
            .map_err(|_| Error::Bug("a sum of another length".into()))
    }

    /// Whether any rank says yes, the same on each.
    pub fn any(&self, own: bool) -> Result<bool> {
        Ok(self.sum([f64::from(u8::from(own))])? != [0.0])
    }

    /// For each place whether any rank says yes.
    pub fn any_of(&self, own: &[bool]) -> Result<Vec<bool>> {
        let own: Vec<_> = own.iter().map(|yes| f64::from(u8::from(*yes))).collect();
        let most = self.reduce(&own, Reduction::Max)?;
        Ok(most.into_iter().map(|value| value != 0.0).collect())
    }

    /// Returns once all ranks are here.
    pub fn barrier(&self) -> Result<()> {
        match self {
            Self::Solo => Ok(()),
            Self::Group(peers) => peers.group.barrier().map_err(lost),
        }
    }

    /// Begins to sum a tensor over all ranks in place; `None` if there is nobody else.
    pub fn begin_sum(&self, tensor: &Tensor) -> Result<Option<Work>> {
        match self {
            Self::Solo => Ok(None),
            Self::Group(peers) => {
                let work = peers.group.all_reduce(tensor, Reduction::Sum);
                work.map(Some).map_err(lost)
            }
        }
    }

    fn reduce(&self, own: &[f64], reduction: Reduction) -> Result<Vec<f64>> {
        let Self::Group(peers) = self else {
            return Ok(own.to_vec());
        };
        let values = Tensor::f_from_slice(own)?.f_to_device(peers.device)?;
        let work = peers.group.all_reduce(&values, reduction).map_err(lost)?;
        work.wait().map_err(lost)?;
        let values = values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        Ok(Vec::try_from(values)?)
    }
}

fn connect(
    store: &Store,
    rank: Rank,
    rendezvous: &Rendezvous,
    device: Device,
) -> torch_ext::Result<ProcessGroup> {
    let place = (rank.rank, rank.world_size);
    let timeout = rendezvous.timeout;
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => ProcessGroup::nccl(store, "run", device, place, timeout),
        _ => ProcessGroup::gloo(store, "run", &rendezvous.own_address, place, timeout),
    }
}

/// A collective that fails says something about the others, unless memory ran out here.
pub(super) fn lost(error: torch_ext::Error) -> Error {
    match error {
        torch_ext::Error::OutOfMemory(message) => Error::OutOfMemory(message),
        other => {
            let message = other.to_string();
            // libtorch has no class for it; these are Gloo's, the store's and NCCL's words.
            let late = ["imed out", "timeout"]
                .iter()
                .any(|words| message.contains(words));
            match late {
                true => Error::Hang(format!(
                    "{message}; another rank is stuck, or needs longer than \
                     runPolicy.hangTimeoutSeconds"
                )),
                false => Error::PeerLost(message),
            }
        }
    }
}
