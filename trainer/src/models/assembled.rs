//! What a family makes of a checkpoint.

use super::config::ConfigJson;
use super::hf;
use super::prepare::Prepare;
use super::weights::Weights;
use crate::engine::{Assembly, Head, Unit};
use crate::error::Result;

/// A family's units, and what of the checkpoint they leave alone.
pub struct Assembled {
    pub assembly: Assembly,
    /// Beginnings of the names of tensors that nothing is computed with; an export copies them.
    pub unused: Vec<String>,
}

impl Assembled {
    pub fn new(units: Vec<Box<dyn Unit>>, head: Head, prepare: Prepare) -> Self {
        Self {
            assembly: Assembly {
                units,
                head,
                prepare: Box::new(prepare),
            },
            unused: Vec::new(),
        }
    }

    /// With tensors that the model has but does not use.
    pub fn leaving(mut self, unused: Vec<String>) -> Self {
        self.unused = unused;
        self
    }
}

/// Whether the output head is the token embedding: what config.json says in either place, and
/// where it is silent, whether the checkpoint lacks a head.
pub fn tied(json: &ConfigJson, weights: &Weights) -> Result<bool> {
    let key = "tie_word_embeddings";
    let said = [
        json.top().flag(key)?,
        json.section("text_config").flag(key)?,
    ];
    let said = said.into_iter().flatten().reduce(|a, b| a || b);
    Ok(said.unwrap_or_else(|| hf::own_head(weights).is_none()))
}

/// As [`tied`], for families whose text part says nothing of its own: transformers writes the
/// text model's default there.
pub fn tied_at_top(json: &ConfigJson, weights: &Weights) -> Result<bool> {
    let said = json.top().flag("tie_word_embeddings")?;
    Ok(said.unwrap_or_else(|| hf::own_head(weights).is_none()))
}
