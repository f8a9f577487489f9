//! Decoders. Legend: T tokens, H hidden size (of rotary tables: half a head), A position axes.

mod block;
mod config;
mod decoder;
mod deepstack;
mod embedding;
mod final_norm;
mod prepare;
mod rope;

pub use block::DecoderBlock;
pub use config::{QWEN2_VL, QWEN3_VL, TextConfig, no_sliding_window};
pub use decoder::decoder;
pub use deepstack::DeepStackAdd;
pub use embedding::TokenEmbedding;
pub use final_norm::FinalNorm;
pub use prepare::{Bidirectional, LanguageLayouts, RowOrder};
pub use rope::{Axes, angles};
