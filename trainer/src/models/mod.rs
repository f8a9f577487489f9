//! Model families: units, tensor names, processors.
//!
//! A family is one folder (its config, its units put together from [`layers`], [`vision`] and
//! [`language`], its side inputs, its processor) and one line in [`registry`].

pub mod adapter;
mod assembled;
mod builder;
mod config;
mod gemma3;
mod generation;
pub mod hf;
mod idefics3;
pub mod image_config;
mod internvl;
mod language;
mod layers;
mod llava;
mod llava_next;
mod options;
pub mod pixels;
mod prepare;
mod processing;
mod projector;
mod qwen2_5_vl;
pub mod qwen2_vl;
mod qwen3_vl;
pub mod random;
pub mod registry;
mod shuffle;
mod square;
#[cfg(test)]
mod untrusted;
mod vision;
mod weights;

pub use adapter::Adapter;
pub use config::{ConfigJson, Section};
pub use generation::stop_ids;
pub use options::{LoraOptions, LoraTargets, Method, ModelOptions, Towers};
pub use registry::{load, load_sharded, open_processor};
pub use weights::Weights;
