//! The trainer against Hugging Face transformers: the real binary, small random checkpoints,
//! every parameter random. `make parity` runs this and prints the table.
//!
//! A family is data: `tests/reference/families/NAME.json`; inputs are `inputs.json`. To add a
//! family, write its file and add its name to [`FAMILIES`].

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod compare;
mod curve;
mod digits;
mod export;
mod forward;
mod generation;
mod mutation;
mod process;
mod reference;
mod table;
mod training;

/// Every family that is compared.
pub const FAMILIES: [&str; 1] = ["qwen2_vl"];
