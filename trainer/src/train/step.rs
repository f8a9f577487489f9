//! One optimizer step: accumulation, normalisation, clipping, update.

use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::engine::{ParameterStore, UnitModel, derive_seed};
use crate::error::Result;
use crate::metrics::StepSample;
use crate::optim::{AdamW, LearningRates, clip_grad_norm, grad_norm};
use crate::parallel::{Comm, GradientReducer};

/// What is the same for every step.
#[derive(Debug, Clone)]
pub(super) struct StepSettings {
    pub seed: u64,
    /// 0 means never clip.
    pub max_grad_norm: f64,
    pub comm: Comm,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StepOutcome {
    pub sample: StepSample,
    /// Global norm before clipping.
    pub grad_norm: f64,
    /// Loss or gradients were not finite: weights and optimizer are as before.
    pub skipped: bool,
}

/// Runs the step numbered `step` (from 0) on its micro-batches. The loss is normalised once, by
/// the supervised tokens of all of them on all ranks, so that how they are split changes nothing.
pub(super) fn optimizer_step(
    model: &mut UnitModel,
    optimizer: &mut AdamW,
    batches: &[Batch],
    step: u64,
    rates: &LearningRates,
    settings: &StepSettings,
) -> Result<StepOutcome> {
    let begin = Instant::now();
    let StepSettings {
        seed,
        max_grad_norm,
        comm,
    } = settings;
    model.parameters_mut().zero_grad()?;
    let supervised: i64 = batches.iter().map(|batch| batch.supervised_tokens).sum();
    let [supervised] = comm.sum([supervised as f64])?;
    let seeds = [*seed, step];
    let loss_sum = forward_backward(model, batches, supervised.max(1.0), seeds, comm)?;
    comm.at(step, "update");
    let store = model.parameters_mut();
    let norm = global_norm(store, comm)?;
    let buffers = store.buffers_mut();
    let skipped = comm.any(!loss_sum.is_finite() || !norm.is_finite())?;
    if !skipped {
        if *max_grad_norm > 0.0 {
            clip_grad_norm(buffers, norm, *max_grad_norm)?;
        }
        optimizer.step(buffers, rates)?;
        store.refresh(false)?;
    }
    Ok(StepOutcome {
        sample: count(batches, loss_sum, begin.elapsed(), comm)?,
        grad_norm: norm,
        skipped,
    })
}

/// L2 norm of the reduced gradient; where each rank has a slice of it, over all slices.
fn global_norm(store: &ParameterStore, comm: &Comm) -> Result<f64> {
    let norm = grad_norm(store.buffers())?;
    if !store.sharding().is_sharded() {
        return Ok(norm);
    }
    let [sum] = comm.sum([norm * norm])?;
    Ok(sum.sqrt())
}

/// Gradients of all micro-batches of all ranks; returns this rank's loss sum. The ranks'
/// gradients are summed during the last backward pass.
fn forward_backward(
    model: &mut UnitModel,
    batches: &[Batch],
    normaliser: f64,
    [seed, step]: [u64; 2],
    comm: &Comm,
) -> Result<f64> {
    let mut reducer = GradientReducer::new(comm, model.parameters());
    let names: Vec<_> = model.unit_names().into_iter().map(str::to_owned).collect();
    let mut loss_sum = 0.0;
    for (number, batch) in batches.iter().enumerate() {
        let seed = derive_seed(&[seed, step, number as u64, comm.rank().rank as u64]);
        let last = number + 1 == batches.len();
        comm.at(step, &format!("forward of micro-batch {number}"));
        let mut done = |unit: usize, store: &ParameterStore| {
            let name = names.get(unit).map_or("", String::as_str);
            comm.at(step, &format!("backward, has left {name}"));
            reducer.done_with(unit, last, store)
        };
        let loss = model.forward_backward_with(batch, normaliser, seed, &mut done)?;
        reducer.finish_micro_batch(last, model.parameters())?;
        loss_sum += loss.loss_sum;
    }
    reducer.finish(model.parameters_mut())?;
    Ok(loss_sum)
}

/// What all ranks did together.
fn count(batches: &[Batch], loss_sum: f64, duration: Duration, comm: &Comm) -> Result<StepSample> {
    let mut sample = StepSample::default();
    for batch in batches {
        sample.tokens += batch.segments.iter().sum::<i64>() as u64;
        sample.supervised_tokens += batch.supervised_tokens as u64;
        sample.samples += batch.segments.len() as u64;
        sample.images += batch
            .vision
            .as_ref()
            .map_or(0, |v| v.grids_thw.len() as u64);
    }
    let StepSample {
        tokens,
        supervised_tokens,
        samples,
        images,
        ..
    } = sample;
    let counts = [tokens, supervised_tokens, samples, images].map(|count| count as f64);
    let [loss_sum] = comm.sum([loss_sum])?;
    let [tokens, supervised_tokens, samples, images] = comm.sum(counts)?.map(|count| count as u64);
    Ok(StepSample {
        loss_sum,
        duration,
        tokens,
        supervised_tokens,
        samples,
        images,
    })
}
