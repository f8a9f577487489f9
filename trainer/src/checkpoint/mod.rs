//! Checkpoints: manifest, atomic store, fence, retention, and the export of a finished model.
//!
//! ```text
//! <namespace>/<name>/<uid>/      one run
//!   fence.json                   which attempt may publish, and what it found
//!   checkpoints/step-00000100/   weights.safetensors, optimizer.safetensors, manifest.json
//! ```
//!
//! Where ranks hold slices, each writes its own: `weights-00001-of-00004.safetensors` and so on.

pub(crate) mod digest;
pub(crate) mod durable;
mod export;
mod fence;
mod manifest;
mod parts;
mod retention;
mod store;
mod tensors;

pub use export::{AdapterExport, Export, Trained};
pub use fence::Fence;
pub use manifest::{Differences, Environment, FileEntry, Manifest};
pub use parts::{Content, TensorParts};
pub use retention::{Entry, Retention};
pub use store::{
    Checkpoint, Published, Store, checkpoint_folder, file_entry, newest_complete, temporary_folder,
};
pub use tensors::{TensorFile, write_tensors};

/// Written last: a folder without it is no checkpoint.
pub const MANIFEST_FILE: &str = "manifest.json";
