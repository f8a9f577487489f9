//! Checkpoints: manifest, atomic store, fence, retention, and the export of a finished model.
//!
//! ```text
//! <namespace>/<name>/<uid>/      one run
//!   fence.json                   which attempt may publish, and what it found
//!   checkpoints/step-00000100/   weights.safetensors, optimizer.safetensors, manifest.json
//! ```

pub(crate) mod digest;
mod durable;
mod export;
mod fence;
mod manifest;
mod retention;
mod store;
mod tensors;

pub use export::{AdapterExport, Export};
pub use fence::Fence;
pub use manifest::{Differences, Environment, FileEntry, Manifest};
pub use retention::{Entry, Retention};
pub use store::{Checkpoint, Published, Store, newest_complete};
pub use tensors::{TensorFile, write_tensors};

/// Trainable weights by checkpoint name, in storage kind.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// Optimizer state by checkpoint name.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Written last: a folder without it is no checkpoint.
pub const MANIFEST_FILE: &str = "manifest.json";
