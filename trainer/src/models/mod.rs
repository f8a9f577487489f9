//! Model families: units, tensor names, processors.
//!
//! A family is one folder (its config, its units put together from [`layers`], [`vision`] and
//! [`language`], its side inputs, its processor) and one line in [`registry`].

pub mod adapter;
mod builder;
mod config;
mod generation;
pub mod hf;
pub mod image_config;
mod language;
mod layers;
mod options;
pub mod pixels;
pub mod qwen2_vl;
pub mod random;
pub mod registry;
mod vision;
mod weights;

pub use adapter::Adapter;
pub use config::{ConfigJson, Section};
pub use generation::stop_ids;
pub use options::{LoraOptions, LoraTargets, Method, ModelOptions, Towers};
pub use registry::{load, open_processor};
pub use weights::Weights;
