//! Which families there are, by `architectures[0]` of `config.json`.

use std::path::Path;
use std::sync::Arc;

use super::assembled::Assembled;
use super::config::ConfigJson;
use super::hf;
use super::image_config::PixelLimits;
use super::options::ModelOptions;
use super::weights::Weights;
use super::{gemma3, idefics3, internvl, llava, llava_next, qwen2_5_vl, qwen2_vl, qwen3_vl};
use crate::engine::{Init, Projection, Sharding, UnitModel};
use crate::error::{Error, Result};
use crate::processor::Processor;

/// One supported family.
#[derive(Debug)]
pub struct Family {
    /// For people, e.g. `Qwen2-VL`.
    pub name: &'static str,
    /// Values of `architectures[0]`.
    pub architectures: &'static [&'static str],
    /// A published checkpoint, by its name on the Hugging Face Hub.
    pub example: &'static str,
    assemble: fn(&ConfigJson, &Weights, &ModelOptions) -> Result<Assembled>,
    open_processor: fn(&Path, &ConfigJson, PixelLimits) -> Result<Arc<dyn Processor>>,
}

/// Every supported family.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "Qwen2-VL",
        architectures: &["Qwen2VLForConditionalGeneration"],
        example: "Qwen/Qwen2-VL-2B-Instruct",
        assemble: qwen2_vl::assemble,
        open_processor: qwen2_vl::processor::open,
    },
    Family {
        name: "Qwen2.5-VL",
        architectures: &["Qwen2_5_VLForConditionalGeneration"],
        example: "Qwen/Qwen2.5-VL-3B-Instruct",
        assemble: qwen2_5_vl::assemble,
        open_processor: qwen2_vl::processor::open,
    },
    Family {
        name: "Qwen3-VL",
        architectures: &["Qwen3VLForConditionalGeneration"],
        example: "Qwen/Qwen3-VL-4B-Instruct",
        assemble: qwen3_vl::assemble,
        open_processor: |folder, config, limits| {
            qwen2_vl::processor::open_with(folder, config, limits, qwen3_vl::CHAT_TEMPLATE)
        },
    },
    Family {
        name: "LLaVA-1.5",
        architectures: &["LlavaForConditionalGeneration"],
        example: "llava-hf/llava-1.5-7b-hf",
        assemble: llava::assemble,
        open_processor: llava::processor::open,
    },
    Family {
        name: "LLaVA-NeXT",
        architectures: &["LlavaNextForConditionalGeneration"],
        example: "llava-hf/llava-v1.6-mistral-7b-hf",
        assemble: llava_next::assemble,
        open_processor: llava_next::processor::open,
    },
    Family {
        name: "Gemma 3",
        architectures: &["Gemma3ForConditionalGeneration"],
        example: "google/gemma-3-4b-it",
        assemble: gemma3::assemble,
        open_processor: gemma3::processor::open,
    },
    Family {
        name: "InternVL",
        architectures: &["InternVLForConditionalGeneration"],
        example: "OpenGVLab/InternVL3-1B-hf",
        assemble: internvl::assemble,
        open_processor: internvl::processor::open,
    },
    Family {
        name: "Idefics3, SmolVLM",
        architectures: &[
            "Idefics3ForConditionalGeneration",
            "SmolVLMForConditionalGeneration",
        ],
        example: "HuggingFaceTB/SmolVLM-256M-Instruct",
        assemble: idefics3::assemble,
        open_processor: idefics3::processor::open,
    },
];

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
    load_sharded(folder, options, Sharding::default())
}

/// As [`load`], and keeps of the parameters what `sharding` says.
pub fn load_sharded(
    folder: &Path,
    options: &ModelOptions,
    sharding: Sharding,
) -> Result<UnitModel> {
    let config = ConfigJson::read(folder)?;
    let family = find(&config)?;
    let weights = Weights::open(folder)?;
    let assembled = (family.assemble)(&config, &weights, options)?;
    verify(&assembled, &weights)?;
    UnitModel::sharded(assembled.assembly, options.engine, sharding, &weights)
}

/// Opens a checkpoint folder's processor; the run's own pixel limits outrank the checkpoint's.
pub fn open_processor(folder: &Path, limits: PixelLimits) -> Result<Arc<dyn Processor>> {
    let config = ConfigJson::read(folder)?;
    (find(&config)?.open_processor)(folder, &config, limits)
}

fn verify(assembled: &Assembled, weights: &Weights) -> Result<()> {
    let Assembled { assembly, unused } = assembled;
    let head = match &assembly.head.projection {
        Projection::Own(spec) => Some(spec),
        Projection::Tied(_) => None,
    };
    let units = assembly.units.iter().flat_map(|unit| unit.parameters());
    let all = units.chain(assembly.head.norm.parameters()).chain(head);
    let tied = head.is_none();
    weights.verify(all.filter(|spec| spec.init == Init::Checkpoint), |name| {
        hf::is_stale_buffer(name)
            || (tied && hf::is_head(name))
            || unused.iter().any(|start| name.starts_with(start))
    })
}
