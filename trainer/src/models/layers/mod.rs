//! Layers that several families share. Legend: T rows (tokens or patches), N heads, D head size.

mod activation;
mod attention;
mod linear;
mod norm;
mod rotary;

pub use activation::Activation;
pub use attention::{attend, attend_cached};
pub use linear::{Linear, Lora};
pub use norm::{LayerNorm, RmsNorm};
pub use rotary::{inverse_frequencies, rotary, rotate};
