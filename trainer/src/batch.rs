//! What the data path hands to the engine: one padding-free micro-batch.

use tch::Tensor;

/// Label of a position that is not supervised (PyTorch's `ignore_index`).
pub const IGNORE_INDEX: i64 = -100;

/// One micro-batch. All samples are concatenated along one token axis `T`, without padding;
/// `segments` holds their lengths. Legend: T tokens, P image patches, A position axes.
#[derive(Debug)]
pub struct Batch {
    /// `[T]` int64 token ids, image placeholders already expanded.
    pub input_ids_t: Tensor,
    /// `[T]` int64 targets, already shifted by one: `labels[i]` is what position `i` predicts,
    /// [`IGNORE_INDEX`] where nothing is supervised. Shifting is `data`'s business alone.
    pub labels_t: Tensor,
    /// `[A, T]` int64 positions; restart at 0 with every segment (A = 3 for mrope, else 1).
    pub position_ids_at: Tensor,
    /// Token count of each sample; sums to T.
    pub segments: Vec<i64>,
    /// Absent when no sample of this micro-batch has an image.
    pub vision: Option<VisionBatch>,
    /// Number of positions whose label is not [`IGNORE_INDEX`].
    pub supervised_tokens: i64,
    /// Where the stream continues after this batch.
    pub cursor: Cursor,
}

/// The images of a micro-batch, in the order of their placeholders.
#[derive(Debug)]
pub struct VisionBatch {
    /// `[P, D]` float32 flattened patches of all images (family-specific `D`).
    pub pixel_values_pd: Tensor,
    /// Patch grid `(t, h, w)` of each image, before any merging; products sum to P. `t` counts
    /// frames or tiles.
    pub grids_thw: Vec<[i64; 3]>,
    /// Height and width of each image as given, pixels.
    pub originals_hw: Vec<[i64; 2]>,
    /// `[N]` int64 indices into `T` of the placeholder tokens that vision features replace.
    pub placeholder_positions_n: Tensor,
}

/// Where a data stream stands. Order is a pure function of seed and epoch, so this is all
/// that resuming needs.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Cursor {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Samples of this epoch's order already consumed.
    pub sample: u64,
}
