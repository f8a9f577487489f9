//! Pure arithmetic that operator and trainer must agree on.

pub mod batch;
pub mod estimate;
pub mod gpu;
pub mod memory;
pub mod model_shape;
pub mod preflight;
pub mod remedy;
pub mod resolve;
