//! A whole decoder as units, from its config.

use super::config::TextConfig;
use super::{DecoderBlock, FinalNorm, TokenEmbedding};
use crate::engine::{Head, Projection, Tower, Unit};
use crate::models::builder::UnitBuilder;
use crate::models::hf::{self, Prefix};
use crate::models::options::ModelOptions;
use crate::models::weights::Weights;

/// Embedding and blocks in execution order, and the head behind them.
pub struct Decoder {
    pub units: Vec<Box<dyn Unit>>,
    pub head: Head,
}

/// Assembles the decoder below `prefix`. `tied` says whether the output head is the embedding.
pub fn decoder(
    config: &TextConfig,
    prefix: &Prefix,
    tied: bool,
    weights: &Weights,
    options: &ModelOptions,
) -> Decoder {
    let at = |path: &str| UnitBuilder::new(options, prefix, Tower::Language, path);
    let shape = [config.vocabulary, config.hidden];
    let embedding = TokenEmbedding::new(at("embed_tokens"), shape, config.embedding_scale());
    let projection = match tied {
        true => Projection::Tied(embedding.table_name()),
        false => own_head(shape, weights, options),
    };
    let mut units: Vec<Box<dyn Unit>> = vec![Box::new(embedding)];
    for (index, kind) in config.layers.iter().enumerate() {
        let block = DecoderBlock::new(at(&format!("layers.{index}")), config, *kind);
        units.push(Box::new(block));
    }
    let norm = Box::new(FinalNorm::new(at("norm"), config.hidden, config.norm));
    Decoder {
        units,
        head: Head { norm, projection },
    }
}

/// The untied output head; PEFT leaves it alone unless told otherwise, and so does LoRA here.
fn own_head(shape: [i64; 2], weights: &Weights, options: &ModelOptions) -> Projection {
    let top = Prefix {
        disk: String::new(),
        module: String::new(),
    };
    let mut builder = UnitBuilder::new(options, &top, Tower::Language, "");
    builder.parameter(hf::head_name(weights), &shape);
    builder
        .finish()
        .pop()
        .map_or_else(|| Projection::Tied(String::new()), Projection::Own)
}
