//! Gradient-free inputs, computed once per batch and shared by all units.

use tch::Tensor;

/// Everything units need to know about a batch. Legend: T tokens, P patches, N placeholders.
#[derive(Debug)]
pub struct SideInputs {
    /// `[T]` int64, in the engine's order (segments sorted by length, see [`Segments`]).
    pub input_ids_t: Tensor,
    /// `[T]` int64: the batch's row that each of the engine's rows holds; absent if the same.
    pub order_t: Option<Tensor>,
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
    /// What patches take from a table of learned positions; absent where its rows are taken in
    /// order.
    pub positions: Option<TablePositions>,
    /// `[S]` int64: for projectors that arrange features and separators, which row of
    /// `[features; separator]` each output row is.
    pub arrangement_s: Option<Tensor>,
}

/// Rows of a position table, blended: `[K, P]` int64 rows with `[K, P]` float32 weights, or
/// `[1, P]` rows without weights.
#[derive(Debug)]
pub struct TablePositions {
    pub rows_kp: Tensor,
    pub weights_kp: Option<Tensor>,
}

/// How one kind of attention sees the rows: positions and isolation.
#[derive(Debug)]
pub struct AttentionLayout {
    pub rotary: Option<Rotary>,
    pub segments: Segments,
    /// Rows see themselves and what is before them; ignored where there are masks.
    pub causal: bool,
    /// Boolean `[count, 1, L, L]` (true: the row sees the column) for each group of `segments`;
    /// empty where `causal` says it all, which keeps the fast kernels.
    pub masks: Vec<Tensor>,
    /// Rows that a row sees of those before it, itself included, while generating.
    pub window: Option<i64>,
}

impl AttentionLayout {
    /// Segments without masks or windows.
    pub fn plain(segments: Segments, rotary: Option<Rotary>, causal: bool) -> Self {
        Self {
            rotary,
            segments,
            causal,
            masks: Vec::new(),
            window: None,
        }
    }
}

/// `[T, D]` cosines and sines, in the compute kind; the sines of the first half are negated.
#[derive(Debug)]
pub struct Rotary {
    pub cos_td: Tensor,
    pub signed_sin_td: Tensor,
}

/// Isolated runs of rows. They are kept sorted by length, so that each run of equal lengths is
/// one contiguous slice that attention takes as a batch: no padding, no mask, no gather.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// `(length, count)`, in row order.
    pub groups: Vec<(i64, i64)>,
}

impl Segments {
    /// Sorts segments of these lengths. Also returns the order of rows that the groups imply
    /// (`order[i]` is the given row that row `i` holds), or `None` if it is already that.
    pub fn sorted(lengths: &[i64]) -> (Self, Option<Vec<i64>>) {
        let mut by_length: Vec<usize> = (0..lengths.len()).collect();
        by_length.sort_by_key(|&i| lengths.get(i));
        let sorted = by_length.iter().filter_map(|&i| lengths.get(i).copied());
        let order = (!by_length.is_sorted()).then(|| row_order(lengths, &by_length));
        (Self::in_order(sorted), order)
    }

    /// Segments of these lengths in the given order; neighbours of equal length form a group.
    pub fn in_order(lengths: impl IntoIterator<Item = i64>) -> Self {
        let mut groups: Vec<(i64, i64)> = Vec::new();
        for length in lengths.into_iter().filter(|length| *length > 0) {
            match groups.last_mut() {
                Some((last, count)) if *last == length => *count += 1,
                _ => groups.push((length, 1)),
            }
        }
        Self { groups }
    }

    /// Number of rows of each group.
    pub fn group_rows(&self) -> Vec<i64> {
        self.groups
            .iter()
            .map(|(length, count)| length * count)
            .collect()
    }
}

fn row_order(lengths: &[i64], segments: &[usize]) -> Vec<i64> {
    let mut starts = Vec::with_capacity(lengths.len());
    let mut next = 0;
    for length in lengths {
        starts.push(next);
        next += length;
    }
    let spans = segments
        .iter()
        .filter_map(|&i| Some((*starts.get(i)?, *lengths.get(i)?)));
    spans
        .flat_map(|(start, length)| start..start + length)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Segments;

    #[test]
    fn equal_lengths_form_one_group_and_keep_their_order() {
        let (segments, order) = Segments::sorted(&[2, 1, 2]);
        assert_eq!(segments.groups, [(1, 1), (2, 2)]);
        assert_eq!(segments.group_rows(), [1, 4]);
        assert_eq!(order, Some(vec![2, 0, 1, 3, 4]));
    }

    #[test]
    fn sorted_lengths_need_no_reordering() {
        assert_eq!(Segments::sorted(&[3, 3, 5]).1, None);
        assert_eq!(Segments::sorted(&[]).0.groups, []);
    }
}
