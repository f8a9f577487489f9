//! A finished model as a folder that transformers (or, for an adapter, PEFT) loads.

mod adapter;
mod folder;
mod merge;
mod series;
mod shards;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::Tensor;
use vlft_crds::contract::CHECKPOINTS_FOLDER;
use vlft_crds::output::AdapterOutput;

use crate::engine::TensorSource;
use crate::error::Result;
use crate::models::{Method, Weights};

pub use adapter::AdapterExport;

/// The trained parameters by checkpoint name, in their shapes.
pub type Trained = BTreeMap<String, Tensor>;

/// What is exported, and where to.
#[derive(Debug)]
pub struct Export<'a> {
    /// The folder the run started from.
    pub source: &'a Path,
    /// How the adapter's configuration names its base model.
    pub base_name: String,
    pub method: &'a Method,
    pub trained: &'a Trained,
    /// Largest weight file, bytes.
    pub max_shard_bytes: u64,
}

impl Export<'_> {
    /// Writes a model folder, and for LoRA an adapter folder, as `adapter` asks. Returns what a
    /// user loads: the model, or the adapter where that is all there is. Each folder appears as
    /// a whole or not at all; `allowed` is asked before that.
    pub fn write(
        &self,
        model_folder: &Path,
        adapter_folder: &Path,
        adapter: AdapterOutput,
        allowed: &dyn Fn() -> Result<()>,
    ) -> Result<PathBuf> {
        let Method::Lora(lora) = self.method else {
            self.write_model(model_folder, allowed)?;
            return Ok(model_folder.to_owned());
        };
        if adapter != AdapterOutput::Merged {
            let export = AdapterExport {
                lora,
                base_name: &self.base_name,
                base: &Weights::open(self.source)?,
                trained: self.trained,
            };
            folder::publish(adapter_folder, allowed, |temporary| export.write(temporary))?;
        }
        if adapter == AdapterOutput::Adapter {
            return Ok(adapter_folder.to_owned());
        }
        self.write_model(model_folder, allowed)?;
        Ok(model_folder.to_owned())
    }

    /// Every file of the source, unchanged but for the weights: names, kinds and order of the
    /// tensors are the source's, values are the trained ones.
    fn write_model(&self, target: &Path, allowed: &dyn Fn() -> Result<()>) -> Result<()> {
        let source = Weights::open(self.source)?;
        let trained = self.trained;
        let merged = merge::deltas(self.method, trained, &source)?;
        let tensor = |name: &str| {
            let original = source.tensor(name)?;
            let value = match (trained.get(name), merged.get(name)) {
                (Some(trained), _) => trained.shallow_clone(),
                (None, Some(delta)) => delta.applied_to(&original)?,
                (None, None) => return Ok(original),
            };
            Ok(value
                .f_to_device(tch::Device::Cpu)?
                .f_to_kind(original.kind())?)
        };
        folder::publish(target, allowed, |temporary| {
            folder::copy_companions(self.source, temporary)?;
            series::complete(temporary)?;
            shards::write(temporary, &source, self.max_shard_bytes, &tensor)
        })
    }
}

/// Whether a folder is a run's own, which an export may share but not replace.
fn is_run_folder(folder: &Path) -> bool {
    folder.join(CHECKPOINTS_FOLDER).is_dir()
}
