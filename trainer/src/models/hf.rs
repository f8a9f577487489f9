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

/// `Qwen2VLForConditionalGeneration`: transformers 4.52 moved both parts below `model.`.
pub const QWEN2_VL_VISION: PrefixTable = PrefixTable {
    module: "model.visual.",
    disk: &["model.visual.", "visual."],
    probe: "patch_embed.proj.weight",
};
pub const QWEN2_VL_LANGUAGE: PrefixTable = PrefixTable {
    module: "model.language_model.",
    disk: &["model.language_model.", "language_model.model.", "model."],
    probe: "embed_tokens.weight",
};

/// The output projection, where it is not tied.
pub const LM_HEAD: &str = "lm_head.weight";

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
    name.ends_with("rotary_emb.inv_freq") || name.ends_with("rotary_pos_emb.inv_freq")
}

/// Name on disk of a module that transformers has in memory; `None` if no part holds it.
pub fn module_on_disk(weights: &Weights, module: &str) -> Option<String> {
    [QWEN2_VL_VISION, QWEN2_VL_LANGUAGE]
        .iter()
        .find_map(|table| {
            let rest = module.strip_prefix(table.module)?;
            let prefix = table.find(weights).ok()?;
            Some(format!("{}{rest}", prefix.disk))
        })
}
