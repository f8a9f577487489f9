//! Fine-tunes vision-language models on tch/libtorch.
//!
//! `train` may use every sibling; `data`, `models`, `optim` and `metrics` use none of each
//! other and meet only in [`batch`] and [`processor`]. Models know no ranks; only `parallel`
//! names process groups.

pub mod batch;
pub mod checkpoint;
pub mod commands;
pub mod data;
pub mod engine;
pub mod error;
pub mod metrics;
pub mod models;
pub mod optim;
pub mod parallel;
pub mod plan;
pub mod processor;
pub mod run_folder;
pub mod threads;
pub mod train;
