//! Ranks: who this process is among its peers, what they agree on, and how gradients meet.

mod comm;
mod heartbeat;
mod rank;
mod reducer;
mod traffic;

pub use comm::Comm;
pub use rank::{Rank, Rendezvous};
pub use reducer::GradientReducer;
pub use traffic::Exchange;
