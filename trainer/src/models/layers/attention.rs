//! Scaled dot-product attention over isolated segments of rows.

use tch::Tensor;

use crate::engine::{AttentionLayout, SeenRows};
use crate::error::{Error, Result};

/// Attention of `[T, N, D]` queries over `[T, M, D]` keys and values (M divides N: grouped
/// heads), each segment by itself. Segments of equal length run as one batch. Returns
/// `[T, N * D]`.
pub fn attend(
    query_tnd: &Tensor,
    key_tmd: &Tensor,
    value_tmd: &Tensor,
    layout: &AttentionLayout,
    dropout: f64,
) -> Result<Tensor> {
    let groups = &layout.segments.groups;
    let mut outputs = Vec::with_capacity(groups.len());
    if let [(length, count)] = groups.as_slice() {
        let parts = [query_tnd, key_tmd, value_tmd];
        return attend_group(parts, *length, *count, layout.causal, dropout);
    }
    let rows = layout.segments.group_rows();
    let split = |x: &Tensor| x.f_split_with_sizes(rows.as_slice(), 0);
    let (queries, keys, values) = (split(query_tnd)?, split(key_tmd)?, split(value_tmd)?);
    for (((length, count), q), (k, v)) in groups.iter().zip(&queries).zip(keys.iter().zip(&values))
    {
        outputs.push(attend_group(
            [q, k, v],
            *length,
            *count,
            layout.causal,
            dropout,
        )?);
    }
    Ok(Tensor::f_cat(&outputs, 0)?)
}

/// One batch of `count` segments of `length` rows.
fn attend_group(
    [query, key, value]: [&Tensor; 3],
    length: i64,
    count: i64,
    causal: bool,
    dropout: f64,
) -> Result<Tensor> {
    let batch = |x: &Tensor| -> Result<Tensor> {
        let (_, heads, size) = x.size3()?;
        Ok(x.f_view([count, length, heads, size])?.f_transpose(1, 2)?)
    };
    let (_, heads, size) = query.size3()?;
    let grouped = key.size3()?.1 != heads;
    let (query, key, value) = (batch(query)?, batch(key)?, batch(value)?);
    let mask = None::<&Tensor>;
    let output = Tensor::f_scaled_dot_product_attention(
        &query, &key, &value, mask, dropout, causal, None, grouped,
    )?;
    Ok(output
        .f_transpose(1, 2)?
        .f_reshape([count * length, heads * size])?)
}

/// Attention of the newest rows, `[B * R, N, D]` queries, over all rows seen so far. Either these
/// are the first rows or there is one new row of each sequence. Returns `[B * R, N * D]`.
pub fn attend_cached(
    query_rnd: &Tensor,
    seen: &SeenRows,
    layout: &AttentionLayout,
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
    // The newest row sees everything; the first rows see what is before them.
    let causal = layout.causal && new > 1;
    let grouped = seen.keys.size4()?.1 != heads;
    let mask = None::<&Tensor>;
    let output = Tensor::f_scaled_dot_product_attention(
        &query,
        &seen.keys,
        &seen.values,
        mask,
        0.0,
        causal,
        None,
        grouped,
    )?;
    Ok(output.f_transpose(1, 2)?.f_reshape([rows, heads * size])?)
}
