//! Qwen2-VL's side inputs: row order, rotary tables, placeholder rows.

use tch::{Device, Tensor};

use super::config::Config;
use crate::batch::{Batch, VisionBatch};
use crate::engine::{AttentionLayout, Precision, PrepareBatch, Segments, SideInputs, VisionSide};
use crate::error::{Error, Result};
use crate::models::language::mrope_angles;
use crate::models::layers::{inverse_frequencies, rotary};

/// What of the config the side inputs depend on.
#[derive(Debug)]
pub struct Prepare {
    text_frequencies: Tensor,
    mrope_sections: Vec<i64>,
    vision_frequencies: Tensor,
    merge: i64,
}

impl Prepare {
    pub fn new(config: &Config) -> Result<Self> {
        let (text, vision) = (&config.text, &config.vision);
        Ok(Self {
            text_frequencies: inverse_frequencies(text.head_size(), text.rope_theta)?,
            mrope_sections: text.mrope_sections.clone(),
            vision_frequencies: inverse_frequencies(vision.head_size() / 2, vision.rope_theta)?,
            merge: vision.merge,
        })
    }

    fn vision_side(
        &self,
        vision: &VisionBatch,
        order_t: Option<&Tensor>,
        precision: Precision,
        device: Device,
    ) -> Result<VisionSide> {
        let frames = frames(&vision.grids_thw);
        let lengths: Vec<i64> = frames.iter().map(|[h, w]| h * w).collect();
        let (segments, order_p) = Segments::sorted(&lengths);
        let positions = self.patch_positions(&frames);
        let merge = self.merge * self.merge;
        let mut rows_n = vision.placeholder_positions_n.to_device(Device::Cpu);
        if let Some(order_t) = order_t {
            // argsort of a permutation is its inverse: from the batch's row to the engine's.
            rows_n = order_t.f_argsort(0, false)?.f_index_select(0, &rows_n)?;
        }
        let mut pixels = vision.pixel_values_pd.f_to_device(device)?;
        let mut angles_ph = self.patch_angles(&positions)?;
        if let Some(order_p) = order_p {
            let features: Vec<i64> = order_p
                .iter()
                .step_by(usize::try_from(merge).unwrap_or(1))
                .map(|p| p / merge)
                .collect();
            rows_n = rows_n.f_index_select(0, &Tensor::f_from_slice(&features)?)?;
            let order_p = Tensor::f_from_slice(&order_p)?;
            angles_ph = angles_ph.f_index_select(0, &order_p)?;
            pixels = pixels.f_index_select(0, &order_p.f_to_device(device)?)?;
        }
        let kind = precision.compute();
        let rotary = Some(rotary(&angles_ph, kind, device)?);
        Ok(VisionSide {
            pixel_values_pd: pixels.f_to_kind(kind)?,
            layouts: vec![AttentionLayout {
                rotary,
                segments,
                causal: false,
            }],
            placeholder_rows_n: rows_n.f_to_device(device)?,
        })
    }

    /// `(row, column)` of each patch: merge blocks in raster order, patches in raster order
    /// inside each block, as the processor lays them out.
    fn patch_positions(&self, frames: &[[i64; 2]]) -> Vec<i64> {
        let merge = self.merge;
        let mut positions = Vec::new();
        for [height, width] in frames {
            for block_row in 0..height / merge {
                for block_column in 0..width / merge {
                    for inner in 0..merge * merge {
                        positions.push(block_row * merge + inner / merge);
                        positions.push(block_column * merge + inner % merge);
                    }
                }
            }
        }
        positions
    }

    /// `[P, D/2]` angles: the first half turns by the row, the second by the column.
    fn patch_angles(&self, positions: &[i64]) -> Result<Tensor> {
        let positions_2p = Tensor::f_from_slice(positions)?.f_view([-1, 2])?.f_tr()?;
        let size = self.vision_frequencies.size1()?;
        let both = Tensor::f_cat(&[&self.vision_frequencies, &self.vision_frequencies], 0)?;
        mrope_angles(&positions_2p, &both, &[size, size])
    }
}

impl PrepareBatch for Prepare {
    fn prepare(&self, batch: &Batch, precision: Precision, device: Device) -> Result<SideInputs> {
        check(batch, self.merge)?;
        let (segments, order) = Segments::sorted(&batch.segments);
        let order_t = order
            .map(|order| Tensor::f_from_slice(&order))
            .transpose()?;
        let mut ids_t = batch.input_ids_t.f_to_device(Device::Cpu)?;
        let mut positions_at = batch.position_ids_at.f_to_device(Device::Cpu)?;
        if let Some(order_t) = &order_t {
            ids_t = ids_t.f_index_select(0, order_t)?;
            positions_at = positions_at.f_index_select(1, order_t)?;
        }
        let angles_th = mrope_angles(&positions_at, &self.text_frequencies, &self.mrope_sections)?;
        let rotary = Some(rotary(&angles_th, precision.compute(), device)?);
        let vision = batch.vision.as_ref();
        let vision = vision
            .map(|v| self.vision_side(v, order_t.as_ref(), precision, device))
            .transpose()?;
        Ok(SideInputs {
            input_ids_t: ids_t.f_to_device(device)?,
            order_t: order_t.map(|order| order.f_to_device(device)).transpose()?,
            language: vec![AttentionLayout {
                rotary,
                segments,
                causal: true,
            }],
            vision,
        })
    }
}

/// Height and width, in patches, of each frame that attends within itself.
fn frames(grids_thw: &[[i64; 3]]) -> Vec<[i64; 2]> {
    let repeated = |[t, h, w]: &[i64; 3]| (0..*t).map(|_| [*h, *w]).collect::<Vec<_>>();
    grids_thw.iter().flat_map(repeated).collect()
}

/// The batch's parts must agree with each other, whatever made them.
fn check(batch: &Batch, merge: i64) -> Result<()> {
    let tokens = batch.input_ids_t.size1()?;
    let sum: i64 = batch.segments.iter().sum();
    if sum != tokens {
        return Err(Error::Bug(format!(
            "segments sum to {sum}, the batch has {tokens} tokens"
        )));
    }
    let Some(vision) = &batch.vision else {
        return Ok(());
    };
    let uneven = |[t, h, w]: &&[i64; 3]| *t < 1 || h % merge != 0 || w % merge != 0 || h * w < 1;
    if let Some(grid) = vision.grids_thw.iter().find(uneven) {
        return Err(Error::Bug(format!(
            "grid {grid:?} is no multiple of the merge size {merge}"
        )));
    }
    let patches: i64 = vision
        .grids_thw
        .iter()
        .map(|g| g.iter().product::<i64>())
        .sum();
    let (rows, _) = vision.pixel_values_pd.size2()?;
    let placeholders = vision.placeholder_positions_n.size1()?;
    if patches != rows || patches != placeholders * merge * merge {
        return Err(Error::Bug(format!(
            "grids ask for {patches} patches, there are {rows}, and {placeholders} placeholders"
        )));
    }
    Ok(())
}
