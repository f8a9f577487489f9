//! Parts of language models. Legend: T tokens, H hidden size.

mod block;
mod embedding;
mod final_norm;
mod mrope;

pub use block::{DecoderBlock, DecoderBlockShape};
pub use embedding::TokenEmbedding;
pub use final_norm::FinalNorm;
pub use mrope::mrope_angles;
