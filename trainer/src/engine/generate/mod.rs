//! Greedy generation with a key-value cache, for prompts of equal length as one batch.

mod cache;
mod greedy;
mod prompts;

pub use cache::{KeyValueCache, SeenRows, UnitCache};
pub use greedy::{GenerateOptions, generate};
pub use prompts::join_equal;
