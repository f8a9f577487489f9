//! c10d: the store where ranks meet, and collectives between them.
//!
//! Errors name the rank and the collective. Collectives must be issued in the same order on
//! every rank; tensors are contiguous and must not be used before the [`Work`] has been waited
//! for.

mod group;
mod store;

pub use group::{Collective, ProcessGroup, Reduction, Work};
pub use store::Store;

#[cfg(test)]
mod tests;
