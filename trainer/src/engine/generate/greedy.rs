//! Greedy decoding: the likeliest token, again and again, until a stop token.

use tch::{Kind, Tensor};

use super::cache::KeyValueCache;
use crate::batch::{Batch, IGNORE_INDEX};
use crate::engine::UnitModel;
use crate::error::{Error, Result};

/// When a sequence ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateOptions {
    pub max_new_tokens: usize,
    /// Ids after which a sequence ends (the end of turn, usually).
    pub stop_ids: Vec<u32>,
}

/// Continues the `B` equally long segments of `prompts`. Returns the new ids of each, a stop
/// token included as its last where one was reached. The same text as one at a time, up to
/// rounding.
pub fn generate(
    model: &UnitModel,
    prompts: &Batch,
    options: &GenerateOptions,
) -> Result<Vec<Vec<u32>>> {
    let sequences = prompts.segments.len() as i64;
    let length = equal_length(prompts)?;
    let room = i64::try_from(options.max_new_tokens).unwrap_or(i64::MAX / 2);
    let cache = KeyValueCache::new(sequences, length + room);
    let mut positions_ab = next_positions(prompts, length)?;
    let mut written = vec![Written::default(); prompts.segments.len()];
    let mut logits_bv = None;
    for _ in 0..options.max_new_tokens {
        let logits = match logits_bv.take() {
            Some(logits) => logits,
            None => model.extend(prompts, &cache)?,
        };
        let next_b = logits.f_argmax(-1, false)?;
        if append(&mut written, &next_b, options)? {
            break;
        }
        let row = next_batch(prompts, &next_b, &positions_ab)?;
        logits_bv = Some(model.extend(&row, &cache)?);
        positions_ab = positions_ab.f_add_scalar(1)?;
    }
    Ok(written.into_iter().map(|sequence| sequence.ids).collect())
}

/// What a sequence has got so far.
#[derive(Debug, Clone, Default)]
struct Written {
    ids: Vec<u32>,
    stopped: bool,
}

/// Adds a token to each sequence that goes on. Returns whether all have stopped.
fn append(written: &mut [Written], next_b: &Tensor, options: &GenerateOptions) -> Result<bool> {
    let next = Vec::<i64>::try_from(next_b)?;
    for (sequence, id) in written.iter_mut().zip(next) {
        if sequence.stopped {
            continue;
        }
        let id = u32::try_from(id).map_err(|_| Error::Bug(format!("token id {id}")))?;
        sequence.ids.push(id);
        sequence.stopped = options.stop_ids.contains(&id);
    }
    let ended = |s: &Written| s.stopped || s.ids.len() == options.max_new_tokens;
    Ok(written.iter().all(ended))
}

fn equal_length(prompts: &Batch) -> Result<i64> {
    match prompts.segments.as_slice() {
        [] => Err(Error::Bug("nothing to generate from".into())),
        [first, rest @ ..] if rest.iter().all(|length| length == first) => Ok(*first),
        lengths => Err(Error::Bug(format!(
            "prompts of unequal lengths: {lengths:?}"
        ))),
    }
}

/// `[A, B]`: text goes on one past the largest position of its prompt, on every axis.
fn next_positions(prompts: &Batch, length: i64) -> Result<Tensor> {
    let axes = prompts.position_ids_at.size2()?.0;
    let positions_abl = prompts.position_ids_at.f_view([axes, -1, length])?;
    let last_b = positions_abl.f_amax([0i64, 2].as_slice(), false)?;
    Ok(last_b
        .f_add_scalar(1)?
        .f_unsqueeze(0)?
        .f_repeat([axes, 1])?)
}

/// One new row of each sequence.
fn next_batch(prompts: &Batch, ids_b: &Tensor, positions_ab: &Tensor) -> Result<Batch> {
    let device = prompts.input_ids_t.device();
    let ids_t = ids_b.f_to_device(device)?.f_to_kind(Kind::Int64)?;
    Ok(Batch {
        labels_t: ids_t.f_full_like(IGNORE_INDEX)?,
        input_ids_t: ids_t,
        position_ids_at: positions_ab.shallow_clone(),
        segments: vec![1; prompts.segments.len()],
        vision: None,
        supervised_tokens: 0,
        cursor: prompts.cursor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Cursor;

    fn prompts(positions: &[i64], axes: i64, segments: Vec<i64>) -> Batch {
        let tokens: i64 = segments.iter().sum();
        Batch {
            input_ids_t: Tensor::arange(tokens, (Kind::Int64, tch::Device::Cpu)),
            labels_t: Tensor::full([tokens], IGNORE_INDEX, (Kind::Int64, tch::Device::Cpu)),
            position_ids_at: Tensor::from_slice(positions).view([axes, tokens]),
            segments,
            vision: None,
            supervised_tokens: 0,
            cursor: Cursor {
                epoch: 0,
                sample: 0,
            },
        }
    }

    #[test]
    fn positions_go_on_after_the_largest_of_any_axis() {
        // Two prompts of two rows; an image made the second axis of the first run ahead.
        let batch = prompts(&[0, 1, 0, 1, 0, 5, 0, 1], 2, vec![2, 2]);
        let next = next_positions(&batch, equal_length(&batch).unwrap()).unwrap();
        assert_eq!(Vec::<i64>::try_from(next.view(-1)).unwrap(), [6, 2, 6, 2]);
    }

    #[test]
    fn unequal_prompts_are_refused() {
        assert!(equal_length(&prompts(&[0, 0, 1], 1, vec![1, 2])).is_err());
    }

    #[test]
    fn a_stopped_sequence_gets_nothing_more() {
        let options = GenerateOptions {
            max_new_tokens: 3,
            stop_ids: vec![9],
        };
        let mut written = vec![Written::default(); 2];
        for (step, all_ended) in [([9i64, 1], false), ([4, 2], false), ([4, 3], true)] {
            let ended = append(&mut written, &Tensor::from_slice(&step), &options).unwrap();
            assert_eq!(ended, all_ended);
        }
        assert_eq!(written[0].ids, [9]);
        assert_eq!(written[1].ids, [1, 2, 3]);
    }
}
