//! Where each rank is, told to the others once a second: when one of them waits in vain, it can
//! say for whom.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use torch_ext::{Collective, Store};

use super::Rank;
use crate::error::{Error, Result};

const PERIOD: Duration = Duration::from_secs(1);

/// What a rank last said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Whereabouts {
    /// Optimizer step, from 0.
    step: u64,
    /// What it does there: a phase, and in backward the unit it has left last.
    doing: String,
    /// The collective it has begun last, and how many those make.
    collective: String,
    collectives: u64,
    /// When it said so, milliseconds since 1970.
    said: u64,
}

/// This rank's voice, and its ear for the others'.
#[derive(Debug)]
pub(super) struct Heartbeat {
    here: Arc<Mutex<Whereabouts>>,
    store: Arc<Store>,
    rank: Rank,
    /// Dropped with this; then the thread ends.
    _end: Sender<()>,
}

impl Heartbeat {
    /// Begins to tell where this rank is.
    pub fn start(store: Arc<Store>, rank: Rank) -> Result<Self> {
        let here = Arc::new(Mutex::new(Whereabouts::default()));
        let (end, ended) = channel();
        let (told, to) = (Arc::clone(&here), Arc::clone(&store));
        let tell = move || {
            // A store that is gone has nobody behind it who listens.
            while tell(&to, rank.rank, &told).is_ok() {
                if ended.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("heartbeat".into());
        thread
            .spawn(tell)
            .map_err(|cause| Error::Bug(format!("heartbeat thread: {cause}")))?;
        Ok(Self {
            here,
            store,
            rank,
            _end: end,
        })
    }

    /// This rank is there now.
    pub fn at(&self, step: u64, doing: &str) {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.step = step;
        doing.clone_into(&mut here.doing);
    }

    /// This rank begins a collective.
    pub fn begins(&self, collective: Collective) {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.collective = collective.to_string();
        here.collectives += 1;
    }

    /// A collective that fails says something about the others, unless memory ran out here.
    pub fn lost(&self, error: torch_ext::Error) -> Error {
        match lost(error) {
            Error::Hang(message) => {
                let stuck = self.stuck().map_or(String::new(), |stuck| stuck + "; ");
                Error::Hang(format!("{stuck}{message}"))
            }
            other => other,
        }
    }

    /// Who keeps the others waiting: the rank that has begun the fewest collectives, and among
    /// those the one that has been silent for longest.
    fn stuck(&self) -> Option<String> {
        let all = (0..self.rank.world_size).filter_map(|rank| Some((rank, self.of(rank)?)));
        let all: Vec<_> = all.collect();
        let most = all.iter().map(|(_, w)| w.collectives).max()?;
        let (rank, there) = all.iter().min_by_key(|(_, w)| (w.collectives, w.said))?;
        let Whereabouts {
            step,
            doing,
            collective,
            collectives,
            said,
        } = there;
        let silent = now().saturating_sub(*said) / 1000;
        Some(format!(
            "rank {rank} is stuck at step {step} ({doing}): its last collective was {collective}, \
             number {collectives} where others are at {most}; last heard of {silent} s ago"
        ))
    }

    fn of(&self, rank: i64) -> Option<Whereabouts> {
        if rank == self.rank.rank {
            let here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(Whereabouts {
                said: now(),
                ..here.clone()
            });
        }
        let key = key(rank);
        let has = self.store.has(&key).is_ok_and(|has| has);
        let value = has.then(|| self.store.get(&key).ok()).flatten()?;
        serde_json::from_slice(&value).ok()
    }
}

fn tell(store: &Store, rank: i64, here: &Mutex<Whereabouts>) -> Result<()> {
    let mut said = here.lock().unwrap_or_else(PoisonError::into_inner).clone();
    said.said = now();
    let value = serde_json::to_vec(&said).map_err(|cause| Error::Bug(cause.to_string()))?;
    Ok(store.set(&key(rank), &value)?)
}

fn key(rank: i64) -> String {
    format!("whereabouts/{rank}")
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// As [`Heartbeat::lost`], before there is one.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(rank: i64) -> Rank {
        Rank {
            rank,
            world_size: 3,
            local_rank: rank,
        }
    }

    #[test]
    fn the_rank_that_is_behind_is_named_with_its_place() {
        let store = Arc::new(Store::serve(0, Duration::from_secs(10)).unwrap());
        let ranks = [0, 1, 2].map(|n| Heartbeat::start(Arc::clone(&store), rank(n)).unwrap());
        for (heartbeat, collectives) in ranks.iter().zip([7, 4, 7]) {
            heartbeat.at(2, "backward, has left model.layers.1");
            for _ in 0..collectives {
                heartbeat.begins(Collective::ReduceScatter);
            }
            tell(&store, heartbeat.rank.rank, &heartbeat.here).unwrap();
        }
        let late = torch_ext::Error::Torch("wait timeout after 10 s".into());
        let Error::Hang(message) = ranks[0].lost(late) else {
            panic!("no Hang");
        };
        for words in [
            "rank 1 is stuck at step 2 (backward, has left model.layers.1)",
            "reduce-scatter, number 4 where others are at 7",
            "hangTimeoutSeconds",
        ] {
            assert!(message.contains(words), "{message}");
        }
        let gone = torch_ext::Error::Torch("connection reset by peer".into());
        assert!(matches!(ranks[0].lost(gone), Error::PeerLost(_)));
    }
}
