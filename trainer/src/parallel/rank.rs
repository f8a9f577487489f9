//! Which of the run's processes this one is.

use std::time::Duration;

/// A process's place: `rank = node x processes of a node + local_rank`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// Number among all processes, from 0.
    pub rank: i64,
    pub world_size: i64,
    /// Number among the processes of its node, from 0; its GPU there.
    pub local_rank: i64,
}

impl Rank {
    /// The only process.
    pub const ONLY: Self = Self {
        rank: 0,
        world_size: 1,
        local_rank: 0,
    };

    /// The process that writes checkpoints and speaks for the run.
    pub fn is_first(self) -> bool {
        self.rank == 0
    }
}

/// Where the processes of a run find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// Whether this process serves the store where the ranks meet; else another one does, which
    /// is at `host`.
    pub serve: bool,
    pub host: String,
    pub port: u16,
    /// A name or address of this process's node that the others reach.
    pub own_address: String,
    /// How long a rank waits for the others, in the rendezvous and in every collective.
    pub timeout: Duration,
}
