//! Ranks: who this process is among its peers, what they agree on, and how gradients meet.

mod comm;
mod rank;
mod reducer;

pub use comm::Comm;
pub use rank::{Rank, Rendezvous};
pub use reducer::GradientReducer;
