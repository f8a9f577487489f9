//! Gradient-free inputs, computed once per batch and shared by all units.

use tch::Tensor;

/// Everything units need to know about a batch. Legend: T tokens, P patches, N placeholders.
#[derive(Debug)]
pub struct SideInputs {
    /// `[T]` int64, in the engine's order (segments sorted by length, see [`Segments`]).
    pub input_ids_t: Tensor,
    /// One entry per kind of attention in the language model (most families: one).
    pub language: Vec<AttentionLayout>,
    /// Absent for a text-only batch.
    pub vision: Option<VisionSide>,
}

/// The vision tower's part of [`SideInputs`].
#[derive(Debug)]
pub struct VisionSide {
    /// `[P, D]` in the compute kind, in the engine's order.
    pub pixel_values_pd: Tensor,
    /// One entry per kind of attention in the tower.
    pub layouts: Vec<AttentionLayout>,
    /// `[N]` int64: the row of `hidden` that each projected feature replaces.
    pub placeholder_rows_n: Tensor,
}

/// How one kind of attention sees the rows: positions and isolation.
#[derive(Debug)]
pub struct AttentionLayout {
    pub rotary: Option<Rotary>,
    pub segments: Segments,
    pub causal: bool,
}

/// `[T, D]` cosines and sines, in the compute kind.
#[derive(Debug)]
pub struct Rotary {
    pub cos_td: Tensor,
    pub sin_td: Tensor,
}

/// Isolated runs of rows. They are kept sorted by length, so that each run of equal lengths is
/// one contiguous slice that attention takes as a batch: no padding, no mask, no gather.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// `(length, count)`, in row order.
    pub groups: Vec<(i64, i64)>,
}
