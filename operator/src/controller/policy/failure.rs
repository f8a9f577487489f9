//! Failed attempts: one verdict from what its pods left behind. A root cause outranks the
//! pods that only lost their peer, whatever the time stamps say.

use std::cmp::Reverse;
use std::time::Duration;

use vlft_crds::contract::truncate_end;
use vlft_crds::status::{FailureClass, MAX_LOG_TAIL_BYTES, MAX_MESSAGE_BYTES, Verdict};

use super::pod_failure::{PodFailure, classify};
use super::retry::ended_by;
use crate::controller::decide::{Decision, Input, after};
use crate::controller::observe::{AttemptJob, Child, TrainerPod};

/// Pause before looking again for a pod's last state: its watch may lag behind the Job's.
pub const SETTLE: Duration = Duration::from_secs(1);
/// How long a pod's last state is waited for.
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);

/// The Job has failed.
pub fn failed(input: &Input) -> Option<Decision> {
    let job = input.observed.job.as_ref()?;
    let failure = job.failure()?;
    if !pods_settled(input, job) {
        let message = "the Job has failed; waiting for the last state of its pods";
        return Some(Decision::note(input.status.phase, "Failing", message).wake(Some(SETTLE)));
    }
    let words = failure.message.as_deref().unwrap_or("the Job has failed");
    Some(ended_by(input, verdict(input, words)))
}

/// Someone else deletes the Job of a running attempt.
pub fn job_deleted(input: &Input) -> Option<Decision> {
    let observed = input.observed;
    let deleting = observed
        .job
        .as_ref()
        .is_some_and(|job| job.is_being_deleted());
    if !observed.job_vanished && !deleting {
        return None;
    }
    if deleting || observed.pods_alive().next().is_some() {
        let message = "the attempt's Job was deleted; waiting for its pods to end";
        return Some(Decision::note(input.status.phase, "JobDeleted", message));
    }
    Some(ended_by(
        input,
        verdict(input, "the attempt's Job was deleted"),
    ))
}

/// Whether every pod's last state is known, or has been waited for long enough.
pub fn pods_settled(input: &Input, job: &AttemptJob) -> bool {
    let pods = &input.observed.pods;
    let over = |child: &Child<TrainerPod>| child.gone || child.object.is_over();
    if !pods.is_empty() && pods.iter().all(over) {
        return true;
    }
    let terminal = job
        .status
        .conditions
        .iter()
        .filter_map(|c| c.last_transition_time.as_ref());
    let ended = terminal.map(|time| time.0).max();
    ended.is_none_or(|ended| after(ended, SETTLE_AT_MOST) <= input.now)
}

/// The verdict that the pods of the attempt lead to; `otherwise` where they tell nothing.
fn verdict(input: &Input, otherwise: &str) -> Verdict {
    let failures = input.observed.pods.iter();
    let mut failures: Vec<(&TrainerPod, PodFailure)> = failures
        .filter_map(|child| Some((child.object.as_ref(), classify(&child.object, child.gone)?)))
        .collect();
    failures.sort_by_key(|(pod, failure)| {
        let ended = failure.ended.as_ref().map(|time| time.0);
        // The first to fail is the nearest to the cause; a pod without a trace comes last.
        (
            Reverse(weight(failure.class)),
            ended.is_none(),
            ended,
            pod.index(),
        )
    });
    match failures.into_iter().next() {
        Some((pod, failure)) => of_pod(input, pod, failure),
        None => Verdict {
            class: FailureClass::Evicted,
            message: format!("{otherwise}; no pod of it left a trace"),
            exit_code: None,
            rank: None,
            pod_name: None,
            node_name: None,
            log_tail: None,
        },
    }
}

/// How near a class is to the root of a failure: losing a peer and being told to leave are
/// what happens to the other pods.
fn weight(class: FailureClass) -> u8 {
    match class {
        FailureClass::PeerLost => 0,
        FailureClass::Drained => 1,
        _ => 2,
    }
}

/// A verdict on a pod that still exists.
pub fn verdict_on(
    input: &Input,
    pod: &TrainerPod,
    class: FailureClass,
    message: String,
) -> Verdict {
    let failure = PodFailure {
        class,
        message,
        exit_code: None,
        rank: None,
        log_tail: None,
        ended: None,
    };
    of_pod(input, pod, failure)
}

fn of_pod(input: &Input, pod: &TrainerPod, failure: PodFailure) -> Verdict {
    let PodFailure {
        class,
        mut message,
        exit_code,
        rank,
        mut log_tail,
        ended: _,
    } = failure;
    truncate_end(&mut message, MAX_MESSAGE_BYTES);
    if let Some(tail) = &mut log_tail {
        truncate_end(tail, MAX_LOG_TAIL_BYTES);
    }
    let first_rank = pod.index() * input.finetune.spec.workers.processes();
    Verdict {
        class,
        message,
        exit_code,
        rank: Some(rank.unwrap_or(first_rank)),
        pod_name: Some(pod.name().to_owned()),
        node_name: pod.spec.node_name.clone(),
        log_tail,
    }
}
