//! Optimizer, schedule, groups, clipping: all on the engine's flat buffers.

mod adamw;
mod clip;
mod groups;
mod schedule;

pub use adamw::{AdamW, AdamWSettings, StateTensor};
pub use clip::{clip_grad_norm, grad_norm};
pub use groups::LearningRates;
pub use schedule::Schedule;
