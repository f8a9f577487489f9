//! Everything is a unit: forward, backward, recompute and the chunked loss.
//!
//! A model is an ordered list of [`Unit`]s over one [`ParameterStore`]. Families in `models`
//! assemble them; `train` drives them through [`UnitModel`]; `optim` sees flat buffers only.

mod generate;
mod head;
mod model;
pub mod parameters;
mod precision;
mod rng;
mod side;
mod streams;
#[cfg(test)]
mod tests;
mod unit;
mod walk;

pub use generate::{GenerateOptions, KeyValueCache, SeenRows, UnitCache, generate, join_equal};
pub use head::{Head, Projection};
pub use model::{Assembly, EngineOptions, LossOutput, PrepareBatch, UnitModel};
pub use parameters::{
    FlatBuffer, FrozenParameter, GroupKey, Offload, ParameterStore, Peers, Pending, Sharding, Span,
    Stage, StoreOptions, TensorSource, Tower,
};
pub use precision::Precision;
pub use rng::derive_seed;
pub(crate) use rng::seeded;
pub use side::{AttentionLayout, Rotary, Segments, SideInputs, TablePositions, VisionSide};
pub use unit::{Init, Param, ParameterSpec, Stream, Unit, UnitContext, Weights};
pub use walk::{Recompute, UnitDone};
