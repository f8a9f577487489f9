//! What ranks agree on.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, ProcessGroup, Reduction, Store, Work};

use super::heartbeat::{Heartbeat, lost};
use super::traffic::{Exchange, Traffic};
use super::{Rank, Rendezvous};
use crate::engine::{self, Offload, Sharding, Stage};
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
    // Before the heartbeat, which holds the store: a group still uses it when it is dropped.
    group: ProcessGroup,
    rank: Rank,
    device: Device,
    traffic: Traffic,
    heartbeat: Arc<Heartbeat>,
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
        let heartbeat = Arc::new(Heartbeat::start(Arc::new(store), rank)?);
        let peers = Peers {
            group,
            rank,
            device,
            traffic: Traffic::default(),
            heartbeat,
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
        match self {
            Self::Solo => Ok(own.to_vec()),
            Self::Group(peers) => engine::Peers::any_of(peers.as_ref(), own),
        }
    }

    /// This rank's share of the parameters.
    pub fn sharding(&self, stage: Stage, offload: Offload) -> Sharding {
        let Rank {
            rank, world_size, ..
        } = self.rank();
        Sharding {
            stage,
            offload,
            index: rank,
            count: world_size,
            peers: match self {
                Self::Solo => None,
                Self::Group(peers) => Some(Arc::<Peers>::clone(peers)),
            },
        }
    }

    /// Tells the others where this rank is: the optimizer step, and what it does there.
    pub fn at(&self, step: u64, doing: &str) {
        if let Self::Group(peers) = self {
            peers.heartbeat.at(step, doing);
        }
    }

    /// What a failed collective means.
    pub(super) fn lost(&self, error: torch_ext::Error) -> Error {
        match self {
            Self::Solo => lost(error),
            Self::Group(peers) => peers.lost(error),
        }
    }

    /// Returns once all ranks are here.
    pub fn barrier(&self) -> Result<()> {
        match self {
            Self::Solo => Ok(()),
            Self::Group(peers) => {
                peers.begins(Collective::Barrier);
                peers.group.barrier().map_err(|e| peers.lost(e))
            }
        }
    }

    /// The bytes of every rank, by rank.
    pub fn collect(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Rank {
            rank, world_size, ..
        } = self.rank();
        let (place, world) = (rank as usize, world_size as usize);
        let mut lengths = vec![0.0; world];
        if let Some(length) = lengths.get_mut(place) {
            *length = own.len() as f64;
        }
        let lengths = self.reduce(&lengths, Reduction::Sum)?;
        let lengths: Vec<_> = lengths.into_iter().map(|length| length as usize).collect();
        let begin: usize = lengths.iter().take(place).sum();
        let mut all = vec![0.0; lengths.iter().sum()];
        for (to, from) in all.iter_mut().skip(begin).zip(own) {
            *to = f64::from(*from);
        }
        let all = self.reduce(&all, Reduction::Sum)?;
        let mut bytes = all.into_iter().map(|byte| byte as u8);
        let parts = lengths.into_iter();
        Ok(parts
            .map(|length| bytes.by_ref().take(length).collect())
            .collect())
    }

    /// Begins to sum a tensor over all ranks in place; `None` if there is nobody else.
    pub fn begin_sum(&self, tensor: &Tensor) -> Result<Option<Work>> {
        let Self::Group(peers) = self else {
            return Ok(None);
        };
        peers.begins(Collective::AllReduce);
        peers.traffic.note(Collective::AllReduce, tensor);
        let work = peers.group.all_reduce(tensor, Reduction::Sum);
        work.map(Some).map_err(|e| peers.lost(e))
    }

    /// Begins to sum `whole` over all ranks; `slice` becomes this rank's part of the sum. `None`
    /// if there is nobody else.
    pub fn begin_scatter(&self, slice: &Tensor, whole: &Tensor) -> Result<Option<Work>> {
        let Self::Group(peers) = self else {
            return Ok(None);
        };
        peers.begins(Collective::ReduceScatter);
        peers.traffic.note(Collective::ReduceScatter, whole);
        let work = peers.group.reduce_scatter(slice, whole);
        work.map(Some).map_err(|e| peers.lost(e))
    }

    /// What tensors the ranks have exchanged; agreements about scalars are not counted.
    pub fn traffic(&self) -> Vec<Exchange> {
        match self {
            Self::Solo => Vec::new(),
            Self::Group(peers) => peers.traffic.all(),
        }
    }

    fn reduce(&self, own: &[f64], reduction: Reduction) -> Result<Vec<f64>> {
        match self {
            Self::Solo => Ok(own.to_vec()),
            Self::Group(peers) => peers.reduce(own, reduction),
        }
    }
}

impl Peers {
    fn begins(&self, collective: Collective) {
        self.heartbeat.begins(collective);
    }

    fn lost(&self, error: torch_ext::Error) -> Error {
        self.heartbeat.lost(error)
    }

    fn reduce(&self, own: &[f64], reduction: Reduction) -> Result<Vec<f64>> {
        if own.is_empty() {
            return Ok(Vec::new());
        }
        self.begins(Collective::AllReduce);
        let values = Tensor::f_from_slice(own)?.f_to_device(self.device)?;
        let work = self.group.all_reduce(&values, reduction);
        let work = work.map_err(|e| self.lost(e))?;
        work.wait().map_err(|e| self.lost(e))?;
        let values = values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
        Ok(Vec::try_from(values)?)
    }
}

impl engine::Peers for Peers {
    fn begin_gather(&self, whole: &Tensor, slice: &Tensor) -> Result<Box<dyn engine::Pending>> {
        self.begins(Collective::AllGather);
        self.traffic.note(Collective::AllGather, whole);
        let work = self.group.all_gather(whole, slice);
        Ok(Box::new(Gather {
            work: work.map_err(|e| self.lost(e))?,
            // A view of it may be all that the caller keeps.
            tensors: [whole.shallow_clone(), slice.shallow_clone()],
            heartbeat: Arc::clone(&self.heartbeat),
        }))
    }

    fn any_of(&self, own: &[bool]) -> Result<Vec<bool>> {
        let own: Vec<_> = own.iter().map(|yes| f64::from(u8::from(*yes))).collect();
        let most = self.reduce(&own, Reduction::Max)?;
        Ok(most.into_iter().map(|value| value != 0.0).collect())
    }
}

/// An all-gather under way, and what it works on.
#[derive(Debug)]
struct Gather {
    work: Work,
    tensors: [Tensor; 2],
    heartbeat: Arc<Heartbeat>,
}

impl engine::Pending for Gather {
    fn wait(self: Box<Self>) -> Result<()> {
        let Self {
            work,
            tensors,
            heartbeat,
        } = *self;
        work.wait().map_err(|e| heartbeat.lost(e))?;
        drop(tensors);
        Ok(())
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
