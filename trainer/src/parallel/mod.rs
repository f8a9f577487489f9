//! Ranks: who this process is among its peers, and what they agree on.

use crate::error::Result;

/// How the processes of a run talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comm {
    /// One process: every agreement is with itself.
    Solo,
}

impl Comm {
    /// This process's number, from 0.
    pub fn rank(self) -> i64 {
        match self {
            Self::Solo => 0,
        }
    }

    /// Number of processes.
    pub fn world_size(self) -> i64 {
        match self {
            Self::Solo => 1,
        }
    }

    /// Sum over all ranks, the same on each.
    pub fn sum(self, own: i64) -> Result<i64> {
        match self {
            Self::Solo => Ok(own),
        }
    }

    /// Whether any rank says yes, the same on each.
    pub fn any(self, own: bool) -> Result<bool> {
        match self {
            Self::Solo => Ok(own),
        }
    }
}
