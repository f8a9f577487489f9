//! Layers that several families share. Legend: T rows (tokens or patches), N heads, D head size.

mod activation;
mod attention;
mod linear;
mod mlp;
mod norm;
mod rotary;

pub use activation::Activation;
pub use attention::{AttentionOptions, attend, attend_cached};
pub use linear::{Linear, Lora};
pub use mlp::Mlp;
pub use norm::{LayerNorm, Norm, NormKind, RmsNorm};
pub use rotary::{inverse_frequencies, rotary, rotate};
