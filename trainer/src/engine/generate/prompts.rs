//! Several prompts as one batch.

use tch::Tensor;

use crate::batch::{Batch, VisionBatch};
use crate::error::{Error, Result};

/// Puts equally long one-segment prompts one after the other into a batch.
pub fn join_equal(prompts: &[&Batch]) -> Result<Batch> {
    let Some(first) = prompts.first() else {
        return Err(Error::Bug("no prompts to join".into()));
    };
    let cat = |part: fn(&Batch) -> &Tensor, dim: i64| -> Result<Tensor> {
        let parts: Vec<_> = prompts.iter().map(|prompt| part(prompt)).collect();
        Ok(Tensor::f_cat(&parts, dim)?)
    };
    Ok(Batch {
        input_ids_t: cat(|batch| &batch.input_ids_t, 0)?,
        labels_t: cat(|batch| &batch.labels_t, 0)?,
        position_ids_at: cat(|batch| &batch.position_ids_at, 1)?,
        segments: prompts
            .iter()
            .flat_map(|batch| &batch.segments)
            .copied()
            .collect(),
        vision: join_vision(prompts)?,
        supervised_tokens: prompts.iter().map(|batch| batch.supervised_tokens).sum(),
        cursor: first.cursor,
    })
}

/// All images, their placeholders counted from the start of the joined rows.
fn join_vision(prompts: &[&Batch]) -> Result<Option<VisionBatch>> {
    let (mut pixels, mut placeholders) = (Vec::new(), Vec::new());
    let (mut grids_thw, mut originals_hw) = (Vec::new(), Vec::new());
    let mut start = 0;
    for batch in prompts {
        if let Some(vision) = &batch.vision {
            pixels.push(&vision.pixel_values_pd);
            grids_thw.extend_from_slice(&vision.grids_thw);
            originals_hw.extend_from_slice(&vision.originals_hw);
            placeholders.push(vision.placeholder_positions_n.f_add_scalar(start)?);
        }
        start += batch.input_ids_t.size1()?;
    }
    if pixels.is_empty() {
        return Ok(None);
    }
    Ok(Some(VisionBatch {
        pixel_values_pd: Tensor::f_cat(&pixels, 0)?,
        grids_thw,
        originals_hw,
        placeholder_positions_n: Tensor::f_cat(&placeholders, 0)?,
    }))
}
