//! Every foreign tensor name. Module paths are those of transformers' in-memory models; what
//! is on disk may have other prefixes, which are found here and kept as they are.

use super::weights::Weights;
use crate::error::{Error, Result};

/// One part of a model: the prefix of its tensors on disk, and of its modules in transformers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// With its final dot, e.g. `visual.`.
    pub disk: String,
    /// With its final dot, e.g. `model.visual.`: what PEFT's names are made of.
    pub module: String,
}

/// The layouts that a part of a model may have on disk, newest first.
#[derive(Debug, Clone, Copy)]
pub struct PrefixTable {
    pub module: &'static str,
    pub disk: &'static [&'static str],
    /// A tensor that every checkpoint has below the prefix.
    pub probe: &'static str,
}

/// The decoder of most families. transformers 4.52 moved it below `model.`; LLaVA's checkpoints
/// have it one level deeper, Qwen2-VL's at the top.
pub const LANGUAGE_MODEL: PrefixTable = PrefixTable {
    module: "model.language_model.",
    disk: &["model.language_model.", "language_model.model.", "model."],
    probe: "embed_tokens.weight",
};
/// Idefics3's and SmolVLM's decoder.
pub const TEXT_MODEL: PrefixTable = PrefixTable {
    module: "model.text_model.",
    disk: &["model.text_model."],
    probe: "embed_tokens.weight",
};
/// Qwen's vision towers, mergers included.
pub const VISUAL: PrefixTable = PrefixTable {
    module: "model.visual.",
    disk: &["model.visual.", "visual."],
    probe: "patch_embed.proj.weight",
};
/// CLIP and SigLIP towers of LLaVA and Gemma 3. transformers 5 has dropped the
/// level `vision_model` in memory.
pub const VISION_TOWER: PrefixTable = PrefixTable {
    module: "model.vision_tower.",
    disk: &[
        "model.vision_tower.vision_model.",
        "vision_tower.vision_model.",
        "model.vision_tower.",
        "vision_tower.",
    ],
    probe: "embeddings.patch_embedding.weight",
};
/// InternVL's tower.
pub const INTERN_TOWER: PrefixTable = PrefixTable {
    module: "model.vision_tower.",
    disk: &["model.vision_tower.", "vision_tower."],
    probe: "embeddings.patch_embeddings.projection.weight",
};
/// Idefics3's and SmolVLM's tower.
pub const VISION_MODEL: PrefixTable = PrefixTable {
    module: "model.vision_model.",
    disk: &["model.vision_model."],
    probe: "embeddings.patch_embedding.weight",
};
/// Projectors of LLaVA and what was made after it.
pub const LLAVA_PROJECTOR: PrefixTable = PrefixTable {
    module: "model.multi_modal_projector.",
    disk: &["model.multi_modal_projector.", "multi_modal_projector."],
    probe: "linear_1.weight",
};
/// Gemma 3's norm and matrix.
pub const GEMMA3_PROJECTOR: PrefixTable = PrefixTable {
    probe: "mm_input_projection_weight",
    ..LLAVA_PROJECTOR
};
/// InternVL's norm and two layers.
pub const INTERN_PROJECTOR: PrefixTable = PrefixTable {
    probe: "layer_norm.weight",
    ..LLAVA_PROJECTOR
};
/// Idefics3's and SmolVLM's.
pub const CONNECTOR: PrefixTable = PrefixTable {
    module: "model.connector.",
    disk: &["model.connector."],
    probe: "modality_projection.proj.weight",
};
/// LLaVA-NeXT's learned separator of image rows, a tensor right below the model.
pub const IMAGE_NEWLINE: PrefixTable = PrefixTable {
    module: "model.",
    disk: &["model.", ""],
    probe: "image_newline",
};

/// Every part that may hold modules with adapters.
const PARTS: [&PrefixTable; 10] = [
    &LANGUAGE_MODEL,
    &TEXT_MODEL,
    &VISUAL,
    &VISION_TOWER,
    &INTERN_TOWER,
    &VISION_MODEL,
    &LLAVA_PROJECTOR,
    &GEMMA3_PROJECTOR,
    &INTERN_PROJECTOR,
    &CONNECTOR,
];

/// The output projection, where it is not tied: LLaVA's checkpoints keep it in the decoder.
const HEADS: [&str; 2] = ["lm_head.weight", "language_model.lm_head.weight"];

/// The output projection's name on disk, if the checkpoint has one.
pub fn own_head(weights: &Weights) -> Option<&'static str> {
    HEADS.into_iter().find(|name| weights.contains(name))
}

/// As [`own_head`], or the name it should have.
pub fn head_name(weights: &Weights) -> &'static str {
    own_head(weights).unwrap_or(HEADS[0])
}

/// Whether a tensor is an output projection.
pub fn is_head(name: &str) -> bool {
    HEADS.contains(&name)
}

/// PEFT writes this before the module path.
pub const PEFT_PREFIX: &str = "base_model.model.";

impl PrefixTable {
    /// Finds which of the known layouts the checkpoint has.
    pub fn find(&self, weights: &Weights) -> Result<Prefix> {
        let fits = |disk: &&&str| weights.contains(&format!("{disk}{}", self.probe));
        let disk = self.disk.iter().find(fits).ok_or_else(|| {
            let tried: Vec<_> = self
                .disk
                .iter()
                .map(|d| format!("{d}{}", self.probe))
                .collect();
            Error::User(format!(
                "the checkpoint has none of the tensors {}; config.json and the weights do not \
                 belong together",
                tried.join(", ")
            ))
        })?;
        Ok(Prefix {
            disk: (*disk).to_owned(),
            module: self.module.to_owned(),
        })
    }
}

/// Buffers that older versions saved and no version reads.
pub fn is_stale_buffer(name: &str) -> bool {
    const ENDINGS: [&str; 3] = [
        "rotary_emb.inv_freq",
        "rotary_pos_emb.inv_freq",
        "embeddings.position_ids",
    ];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Name on disk of a module that transformers has in memory; `None` if no part holds it.
pub fn module_on_disk(weights: &Weights, module: &str) -> Option<String> {
    PARTS.iter().find_map(|table| {
        let rest = module.strip_prefix(table.module)?;
        let prefix = table.find(weights).ok()?;
        Some(format!("{}{rest}", prefix.disk))
    })
}
