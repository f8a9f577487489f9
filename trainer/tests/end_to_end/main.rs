//! The trainer's own binary on real files: what it leaves, what it says, how it ends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod bad_data;
mod bad_model;
mod bad_spec;
mod fixture;
mod process;
mod resume;
mod storage;
mod train_config;
mod training;
mod validate;
mod weights;
