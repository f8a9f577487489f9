//! Which families there are, by `architectures[0]` of `config.json`.

use std::path::Path;
use std::sync::Arc;

use super::config::ConfigJson;
use super::hf;
use super::image_config::PixelLimits;
use super::options::ModelOptions;
use super::qwen2_vl;
use super::weights::Weights;
use crate::engine::{Assembly, Init, Projection, UnitModel};
use crate::error::{Error, Result};
use crate::processor::Processor;

/// One supported family.
#[derive(Debug)]
pub struct Family {
    /// For people, e.g. `Qwen2-VL`.
    pub name: &'static str,
    /// Values of `architectures[0]`.
    pub architectures: &'static [&'static str],
    assemble: fn(&ConfigJson, &Weights, &ModelOptions) -> Result<Assembly>,
    open_processor: fn(&Path, &ConfigJson, PixelLimits) -> Result<Arc<dyn Processor>>,
}

/// Every supported family.
pub const FAMILIES: &[Family] = &[Family {
    name: "Qwen2-VL",
    architectures: &["Qwen2VLForConditionalGeneration"],
    assemble: qwen2_vl::assemble,
    open_processor: qwen2_vl::processor::open,
}];

/// The family of a config.
pub fn find(config: &ConfigJson) -> Result<&'static Family> {
    let architecture = config.architecture().unwrap_or("absent");
    let fits = |f: &&Family| f.architectures.contains(&architecture);
    FAMILIES.iter().find(fits).ok_or_else(|| {
        let known: Vec<_> = FAMILIES
            .iter()
            .flat_map(|f| f.architectures)
            .copied()
            .collect();
        Error::User(format!(
            "config.json: architectures[0] is {architecture}; supported are {}",
            known.join(", ")
        ))
    })
}

/// Loads a Hugging Face checkpoint folder as a model that trains as `options` say.
pub fn load(folder: &Path, options: &ModelOptions) -> Result<UnitModel> {
    let config = ConfigJson::read(folder)?;
    let family = find(&config)?;
    let weights = Weights::open(folder)?;
    let assembly = (family.assemble)(&config, &weights, options)?;
    verify(&assembly, &weights)?;
    UnitModel::new(assembly, options.engine, &weights)
}

/// Opens a checkpoint folder's processor; the run's own pixel limits outrank the checkpoint's.
pub fn open_processor(folder: &Path, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    let config = ConfigJson::read(folder)?;
    (find(&config)?.open_processor)(folder, &config, limits)
}

fn verify(assembly: &Assembly, weights: &Weights) -> Result<()> {
    let head = match &assembly.head.projection {
        Projection::Own(spec) => Some(spec),
        Projection::Tied(_) => None,
    };
    let units = assembly.units.iter().flat_map(|unit| unit.parameters());
    let all = units.chain(assembly.head.norm.parameters()).chain(head);
    let tied = head.is_none();
    weights.verify(all.filter(|spec| spec.init == Init::Checkpoint), |name| {
        hf::is_stale_buffer(name) || (tied && name == hf::LM_HEAD)
    })
}
