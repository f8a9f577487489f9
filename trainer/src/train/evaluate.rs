//! Loss on the validation data.

use super::Stop;
use crate::batch::Batch;
use crate::engine::UnitModel;
use crate::error::Result;

/// Mean loss per supervised token over all batches, one at a time. `None` if nothing is
/// supervised, or if the run is asked to leave on the way.
pub(super) fn validation_loss(
    model: &UnitModel,
    batches: impl Iterator<Item = Result<Batch>>,
    stop: &Stop,
) -> Result<Option<f64>> {
    let (mut sum, mut supervised) = (0.0, 0);
    for batch in batches {
        if stop.requested() {
            return Ok(None);
        }
        let loss = model.loss(&batch?)?;
        sum += loss.loss_sum;
        supervised += loss.supervised;
    }
    Ok((supervised > 0).then(|| sum / supervised as f64))
}
