//! Samples to one padding-free batch.

use tch::Tensor;

use super::encoder::{EncodedImage, Sample};
use crate::batch::{Batch, Cursor, IGNORE_INDEX, VisionBatch};
use crate::error::{Error, Result};

/// Concatenates samples along the token axis. `cursor` is where the stream continues.
pub fn collate(samples: &[Sample], cursor: Cursor) -> Result<Batch> {
    let axes = samples.first().map_or(0, |sample| sample.positions.len());
    if axes == 0 {
        return Err(Error::Bug("a batch needs at least one sample".into()));
    }
    let ids: Vec<i64> = samples
        .iter()
        .flat_map(|sample| &sample.ids)
        .map(|&id| i64::from(id))
        .collect();
    let labels: Vec<i64> = samples
        .iter()
        .flat_map(|sample| &sample.labels)
        .copied()
        .collect();
    let positions: Vec<i64> = (0..axes)
        .flat_map(|axis| {
            samples
                .iter()
                .filter_map(move |sample| sample.positions.get(axis))
        })
        .flatten()
        .copied()
        .collect();
    let supervised = labels
        .iter()
        .filter(|label| **label != IGNORE_INDEX)
        .count();
    Ok(Batch {
        input_ids_t: Tensor::f_from_slice(&ids)?,
        labels_t: Tensor::f_from_slice(&labels)?,
        position_ids_at: Tensor::f_from_slice(&positions)?.f_view([axes as i64, -1])?,
        segments: samples
            .iter()
            .map(|sample| sample.ids.len() as i64)
            .collect(),
        vision: vision(samples)?,
        supervised_tokens: supervised as i64,
        cursor,
    })
}

/// The images of all samples, in the order of their placeholders.
fn vision(samples: &[Sample]) -> Result<Option<VisionBatch>> {
    let images: Vec<&EncodedImage> = samples.iter().flat_map(|sample| &sample.images).collect();
    if images.is_empty() {
        return Ok(None);
    }
    let tokens = samples
        .iter()
        .flat_map(|sample| sample.ids.iter().map(|id| *id == sample.image_token_id));
    let placeholders: Vec<i64> = tokens
        .zip(0..)
        .filter_map(|(is_image, index)| is_image.then_some(index))
        .collect();
    let pixels: Vec<&Tensor> = images.iter().map(|image| &image.pixel_values_pd).collect();
    Ok(Some(VisionBatch {
        pixel_values_pd: Tensor::f_cat(&pixels, 0)?,
        grids_thw: images.iter().map(|image| image.grid_thw).collect(),
        originals_hw: images.iter().map(|image| image.original_hw).collect(),
        placeholder_positions_n: Tensor::f_from_slice(&placeholders)?,
    }))
}
