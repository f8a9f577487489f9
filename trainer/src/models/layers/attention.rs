//! Scaled dot-product attention over isolated segments of rows.

use tch::Tensor;

use crate::engine::{AttentionLayout, SeenRows};
use crate::error::{Error, Result};

/// What scores are multiplied with, and how many of them are dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AttentionOptions {
    /// `None` is one over the root of the head size.
    pub scale: Option<f64>,
    pub dropout: f64,
}

/// How the rows of one group see each other.
struct View<'a> {
    causal: bool,
    mask: Option<&'a Tensor>,
}

/// Attention of `[T, N, D]` queries over `[T, M, D]` keys and values (M divides N: grouped
/// heads), each segment by itself. Segments of equal length run as one batch. Returns
/// `[T, N * D]`.
pub fn attend(
    query_tnd: &Tensor,
    key_tmd: &Tensor,
    value_tmd: &Tensor,
    layout: &AttentionLayout,
    options: AttentionOptions,
) -> Result<Tensor> {
    let groups = &layout.segments.groups;
    let view = |group: usize| View {
        causal: layout.causal,
        mask: layout.masks.get(group),
    };
    if let [(length, count)] = groups.as_slice() {
        let parts = [query_tnd, key_tmd, value_tmd];
        return attend_group(parts, *length, *count, &view(0), options);
    }
    let mut outputs = Vec::with_capacity(groups.len());
    let rows = layout.segments.group_rows();
    let split = |x: &Tensor| x.f_split_with_sizes(rows.as_slice(), 0);
    let (queries, keys, values) = (split(query_tnd)?, split(key_tmd)?, split(value_tmd)?);
    let parts = queries.iter().zip(keys.iter().zip(&values));
    for (group, ((length, count), (q, (k, v)))) in groups.iter().zip(parts).enumerate() {
        let output = attend_group([q, k, v], *length, *count, &view(group), options)?;
        outputs.push(output);
    }
    Ok(Tensor::f_cat(&outputs, 0)?)
}

/// One batch of `count` segments of `length` rows.
fn attend_group(
    [query, key, value]: [&Tensor; 3],
    length: i64,
    count: i64,
    view: &View,
    options: AttentionOptions,
) -> Result<Tensor> {
    let batch = |x: &Tensor| -> Result<Tensor> {
        let (_, heads, size) = x.size3()?;
        Ok(x.f_view([count, length, heads, size])?.f_transpose(1, 2)?)
    };
    let (_, heads, size) = query.size3()?;
    let output = scaled_dot_product(
        [&batch(query)?, &batch(key)?, &batch(value)?],
        view,
        options,
    )?;
    Ok(output
        .f_transpose(1, 2)?
        .f_reshape([count * length, heads * size])?)
}

/// `[B, N, R, D]` of queries `[B, N, R, D]`, keys and values `[B, M, L, D]`.
fn scaled_dot_product(
    [query, key, value]: [&Tensor; 3],
    view: &View,
    options: AttentionOptions,
) -> Result<Tensor> {
    let grouped = key.size4()?.1 != query.size4()?.1;
    let causal = view.causal && view.mask.is_none();
    let AttentionOptions { scale, dropout } = options;
    let output = Tensor::f_scaled_dot_product_attention(
        query, key, value, view.mask, dropout, causal, scale, grouped,
    );
    Ok(output?)
}

/// Attention of the newest rows, `[B * R, N, D]` queries, over all rows seen so far. Either these
/// are the first rows or there is one new row of each sequence. Returns `[B * R, N * D]`.
pub fn attend_cached(
    query_rnd: &Tensor,
    seen: &SeenRows,
    layout: &AttentionLayout,
    options: AttentionOptions,
) -> Result<Tensor> {
    let (rows, heads, size) = query_rnd.size3()?;
    let new = rows / seen.sequences.max(1);
    if new != seen.length && new != 1 {
        return Err(Error::Bug(format!(
            "{new} new rows after {} are not supported",
            seen.length - new
        )));
    }
    let query = query_rnd
        .f_view([seen.sequences, new, heads, size])?
        .f_transpose(1, 2)?;
    let first = new == seen.length && new > 1;
    // The newest row sees everything in its window; the first rows see what the layout says.
    let view = View {
        causal: layout.causal && first,
        mask: layout.masks.first().filter(|_| first),
    };
    let from = match layout.window {
        Some(window) if !first => (seen.length - window).max(0),
        _ => 0,
    };
    let length = seen.length - from;
    let keys = seen.keys.f_narrow(2, from, length)?;
    let values = seen.values.f_narrow(2, from, length)?;
    let options = AttentionOptions {
        dropout: 0.0,
        ..options
    };
    let output = scaled_dot_product([&query, &keys, &values], &view, options)?;
    Ok(output.f_transpose(1, 2)?.f_reshape([rows, heads * size])?)
}
