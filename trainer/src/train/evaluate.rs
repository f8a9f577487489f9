//! Loss on the validation data.

use super::Stop;
use crate::batch::Batch;
use crate::engine::UnitModel;
use crate::error::Result;
use crate::parallel::Comm;

/// Mean loss per supervised token over all batches of all ranks, one at a time. `None` if nothing
/// is supervised, or if the run is asked to leave on the way.
pub(super) fn validation_loss(
    model: &UnitModel,
    mut batches: impl Iterator<Item = Result<Batch>>,
    stop: &Stop,
    comm: &Comm,
) -> Result<Option<f64>> {
    let (mut sum, mut supervised) = (0.0, 0);
    loop {
        let batch = match stop.requested() {
            true => None,
            false => batches.next().transpose()?,
        };
        // Ranks whose share is longer need the others' slices of the parameters until the end.
        if !comm.any(batch.is_some())? {
            break;
        }
        let Some(batch) = batch else {
            model.accompany_loss()?;
            continue;
        };
        let loss = model.loss(&batch)?;
        sum += loss.loss_sum;
        supervised += loss.supervised;
    }
    if comm.any(stop.requested())? {
        return Ok(None);
    }
    let [sum, supervised] = comm.sum([sum, supervised as f64])?;
    Ok((supervised > 0.0).then(|| sum / supervised))
}
