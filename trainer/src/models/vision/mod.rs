//! Parts of vision towers. Legend: P patches, D width of the tower.

mod block;
mod patch_embed;
mod patch_merger;

pub use block::{VisionBlock, VisionBlockShape};
pub use patch_embed::PatchEmbed;
pub use patch_merger::PatchMerger;
