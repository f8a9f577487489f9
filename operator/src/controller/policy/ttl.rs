//! What happens to a finished run's children and to the resource itself.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::controller::decide::{Action, Decision, Input, after, until};

/// `deleteAfterFinished`: the resource goes too.
pub fn delete_resource(input: &Input) -> Option<Decision> {
    let wanted = input.finetune.spec.run_policy.delete_after_finished;
    (wanted && is_due(input)).then(|| keep(input).with(Action::DeleteResource))
}

/// Deletes the children; the checkpoint volume stays. The Job goes last: as long as it is
/// there, this is repeated.
pub fn expire(input: &Input) -> Option<Decision> {
    let job = input
        .observed
        .job
        .as_ref()
        .filter(|job| !job.is_being_deleted());
    (job.is_some() && is_due(input)).then(|| keep(input).with(Action::Expire))
}

/// A finished run stays as it is.
pub fn rest(input: &Input) -> Option<Decision> {
    let due = due(input).filter(|due| *due > input.now);
    Some(keep(input).wake(due.map(|due| until(input.now, due))))
}

/// Phase and reason of a finished run never change.
fn keep(input: &Input) -> Decision {
    Decision::note(input.status.phase, "Finished", String::new())
}

fn is_due(input: &Input) -> bool {
    due(input).is_some_and(|due| due <= input.now)
}

fn due(input: &Input) -> Option<Timestamp> {
    let seconds = input.finetune.spec.run_policy.ttl_seconds_after_finished?;
    let end = input.status.completion_time.as_ref()?;
    Some(after(end.0, Duration::from_secs(seconds.unsigned_abs())))
}
