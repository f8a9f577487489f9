//! The language model's side inputs: row order, rotary tables, masks.

use tch::{Device, Kind, Tensor};

use super::config::{AttentionKind, TextConfig};
use super::rope::angles;
use crate::batch::Batch;
use crate::engine::{AttentionLayout, Precision, Segments};
use crate::error::{Error, Result};
use crate::models::layers::rotary;

/// The order in which the engine keeps a batch's rows: segments by length.
#[derive(Debug)]
pub struct RowOrder {
    pub segments: Segments,
    /// `[T]` int64 on the CPU: the batch's row that each of the engine's rows holds; absent if
    /// the same.
    pub order_t: Option<Tensor>,
}

/// Makes the layouts that a decoder's blocks choose from.
#[derive(Debug)]
pub struct LanguageLayouts {
    kinds: Vec<Frequencies>,
    bidirectional: Bidirectional,
}

/// Which rows see what comes after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bidirectional {
    /// None.
    No,
    /// The features of one image see each other (Gemma 3).
    Images,
}

#[derive(Debug)]
struct Frequencies {
    frequencies_h: Tensor,
    axis_h: Vec<i64>,
    window: Option<i64>,
}

impl RowOrder {
    pub fn of(batch: &Batch) -> Result<Self> {
        let tokens = batch.input_ids_t.size1()?;
        let sum: i64 = batch.segments.iter().sum();
        if sum != tokens {
            return Err(Error::Bug(format!(
                "segments sum to {sum}, the batch has {tokens} tokens"
            )));
        }
        let (segments, order) = Segments::sorted(&batch.segments);
        let order_t = order
            .map(|order| Tensor::f_from_slice(&order))
            .transpose()?;
        Ok(Self { segments, order_t })
    }

    /// A tensor on the CPU whose dimension `dim` runs over the batch's rows, in the engine's.
    pub fn apply(&self, tensor: &Tensor, dim: i64) -> Result<Tensor> {
        let tensor = tensor.f_to_device(Device::Cpu)?;
        match &self.order_t {
            Some(order_t) => Ok(tensor.f_index_select(dim, order_t)?),
            None => Ok(tensor),
        }
    }

    /// Where the engine keeps the batch's rows `[N]`.
    pub fn rows(&self, rows_n: &Tensor) -> Result<Tensor> {
        let rows_n = rows_n.f_to_device(Device::Cpu)?;
        match &self.order_t {
            // argsort of a permutation is its inverse: from the batch's row to the engine's.
            Some(order_t) => Ok(order_t.f_argsort(0, false)?.f_index_select(0, &rows_n)?),
            None => Ok(rows_n),
        }
    }
}

impl LanguageLayouts {
    pub fn new(config: &TextConfig, bidirectional: Bidirectional) -> Result<Self> {
        let frequencies = |kind: &AttentionKind| {
            Ok(Frequencies {
                frequencies_h: kind.rope.frequencies()?,
                axis_h: kind.rope.axis_of_frequency(),
                window: kind.window,
            })
        };
        Ok(Self {
            kinds: config
                .kinds
                .iter()
                .map(frequencies)
                .collect::<Result<_>>()?,
            bidirectional,
        })
    }

    /// One layout for each of the decoder's kinds of attention.
    pub fn layouts(
        &self,
        batch: &Batch,
        order: &RowOrder,
        precision: Precision,
        device: Device,
    ) -> Result<Vec<AttentionLayout>> {
        let positions_at = order.apply(&batch.position_ids_at, 1)?;
        let blocks_t = self.blocks(batch, order)?;
        let layout = |kind: &Frequencies| {
            let angles_th = angles(&positions_at, &kind.frequencies_h, &kind.axis_h)?;
            Ok(AttentionLayout {
                rotary: Some(rotary(&angles_th, precision.compute(), device)?),
                segments: order.segments.clone(),
                causal: true,
                masks: masks(&order.segments, kind.window, blocks_t.as_ref(), device)?,
                window: kind.window,
            })
        };
        self.kinds.iter().map(layout).collect()
    }

    /// `[T]` int64 in the engine's order: rows of equal number above 0 that belong to one segment
    /// see each other whatever their order. `None` where there are none.
    fn blocks(&self, batch: &Batch, order: &RowOrder) -> Result<Option<Tensor>> {
        let blocks_t = match self.bidirectional {
            Bidirectional::No => return Ok(None),
            Bidirectional::Images => match &batch.vision {
                Some(vision) => runs(batch, &vision.placeholder_positions_n)?,
                None => return Ok(None),
            },
        };
        order.apply(&blocks_t, 0).map(Some)
    }
}

/// Numbers each run of neighbouring rows, from 1; 0 elsewhere.
fn runs(batch: &Batch, rows_n: &Tensor) -> Result<Tensor> {
    let tokens = usize::try_from(batch.input_ids_t.size1()?).unwrap_or(0);
    let mut blocks = vec![0i64; tokens];
    let (mut last, mut run) = (-2, 0);
    for row in Vec::<i64>::try_from(rows_n.f_to_device(Device::Cpu)?)? {
        run += i64::from(row != last + 1);
        last = row;
        if let Some(block) = usize::try_from(row).ok().and_then(|r| blocks.get_mut(r)) {
            *block = run;
        }
    }
    Ok(Tensor::f_from_slice(&blocks)?)
}

/// Boolean masks of each group of segments, or none where plain causal attention says the same.
fn masks(
    segments: &Segments,
    window: Option<i64>,
    blocks_t: Option<&Tensor>,
    device: Device,
) -> Result<Vec<Tensor>> {
    let longest = segments.groups.iter().map(|(length, _)| *length).max();
    let window = window.filter(|window| longest.is_some_and(|longest| *window < longest));
    if window.is_none() && blocks_t.is_none() {
        return Ok(Vec::new());
    }
    let mut start = 0;
    let mut masks = Vec::with_capacity(segments.groups.len());
    for (length, count) in &segments.groups {
        let distance = distances(*length)?;
        let mut mask = distance.f_ge(0)?;
        if let Some(blocks_t) = blocks_t {
            let blocks = blocks_t.f_narrow(0, start, length * count)?;
            let row = blocks.f_view([*count, 1, *length, 1])?;
            let column = blocks.f_view([*count, 1, 1, *length])?;
            let together = row.f_eq_tensor(&column)?.f_logical_and(&row.f_gt(0)?)?;
            mask = mask.f_logical_or(&together)?;
        }
        if let Some(window) = window {
            mask = mask.f_logical_and(&distance.f_lt(window)?)?;
        }
        masks.push(mask.f_to_device(device)?);
        start += length * count;
    }
    Ok(masks)
}

/// `[1, 1, L, L]` int64: how far each column lies behind its row.
fn distances(length: i64) -> Result<Tensor> {
    let rows = Tensor::f_arange(length, (Kind::Int64, Device::Cpu))?;
    let distance = rows.f_unsqueeze(1)?.f_sub(&rows.f_unsqueeze(0)?)?;
    Ok(distance.f_view([1, 1, length, length])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mask: &Tensor) -> Vec<Vec<i64>> {
        let rows = mask.to_kind(Kind::Int64).squeeze().unbind(0);
        rows.iter()
            .map(|row| Vec::<i64>::try_from(row).unwrap())
            .collect()
    }

    #[test]
    fn a_window_counts_the_row_itself() {
        let (segments, _) = Segments::sorted(&[4]);
        let masks = masks(&segments, Some(2), None, Device::Cpu).unwrap();
        let expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]];
        assert_eq!(seen(&masks[0]), expected);
        assert!(
            super::masks(&segments, Some(4), None, Device::Cpu)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn rows_of_one_block_see_each_other() {
        let (segments, _) = Segments::sorted(&[4]);
        let blocks = Tensor::from_slice(&[0i64, 1, 1, 0]);
        let masks = masks(&segments, None, Some(&blocks), Device::Cpu).unwrap();
        let expected = [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]];
        assert_eq!(seen(&masks[0]), expected);
    }
}
