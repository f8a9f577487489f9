//! Parts of vision towers. Legend: P patches, D width of the tower, I tiles, N features.

mod block;
mod embeddings;
mod features;
mod grid;
pub mod learned;
mod patch_embed;
mod patch_merger;
mod tiles;
mod tower;

use tch::{Device, Tensor};

use crate::batch::VisionBatch;
use crate::engine::{AttentionLayout, Precision, TablePositions};
use crate::error::Result;

pub use block::{
    BlockNames, CLIP_BLOCK, INTERN_BLOCK, QWEN2_5_VL_BLOCK, QWEN2_VL_BLOCK, QWEN3_VL_BLOCK,
    VisionBlock, VisionBlockShape,
};
pub use embeddings::{EmbeddingNames, EmbeddingShape, PatchEmbeddings};
pub use features::{FeatureLayer, FeatureUnit};
pub use grid::GridTower;
pub use patch_embed::PatchEmbed;
pub use patch_merger::{MergerNames, PatchMerger, QWEN2_VL_MERGER};
pub use tiles::TileTower;
pub use tower::{
    CLIP_DEFAULTS, SIGLIP_DEFAULTS, TowerConfig, TowerDefaults, TowerStyle, three_channels,
};

/// Computes a tower's side inputs.
pub trait VisionPrepare: Send {
    fn prepare(
        &self,
        vision: &VisionBatch,
        precision: Precision,
        device: Device,
    ) -> Result<PreparedVision>;
}

/// A tower's side inputs; the rows that features replace are the language model's business.
#[derive(Debug)]
pub struct PreparedVision {
    /// `[P, D]` in the compute kind, in the engine's order.
    pub pixel_values_pd: Tensor,
    pub layouts: Vec<AttentionLayout>,
    /// For each feature in the engine's order, which of the batch's it is; absent if the same.
    pub feature_order: Option<Vec<i64>>,
    pub positions: Option<TablePositions>,
    /// See [`crate::engine::VisionSide::arrangement_s`].
    pub arrangement: Option<Vec<i64>>,
}
