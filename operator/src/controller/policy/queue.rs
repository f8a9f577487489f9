//! Jobs that wait for a queue.

use vlft_crds::status::Phase;

use crate::controller::decide::{Decision, Input};

pub const QUEUED: &str = "Queued";

/// The Job is suspended by its queue.
pub fn queued(input: &Input) -> Option<Decision> {
    let job = input.observed.job.as_ref()?;
    if !job.is_suspended() {
        return None;
    }
    let message = match &input.finetune.spec.scheduling.queue_name {
        Some(queue) => format!("waiting for the queue `{queue}` to admit the attempt"),
        None => "the Job is suspended by someone else; set its spec.suspend to false".to_owned(),
    };
    Some(Decision::note(Phase::Queued, QUEUED, message))
}
