//! Success: the Job is complete and rank 0 reported completion.

use vlft_crds::status::{FailureClass, Verdict};

use super::failure::{SETTLE, pods_settled};
use super::retry::ended_by;
use crate::controller::decide::{Decision, Input};

pub fn completed(input: &Input) -> Option<Decision> {
    let observed = input.observed;
    let job = observed.job.as_ref().filter(|job| job.is_complete())?;
    let report = observed.rank_zero_report();
    if report.is_none() && !pods_settled(input, job) {
        let message = "the Job is complete; waiting for the report of rank 0";
        return Some(Decision::note(input.status.phase, "Completing", message).wake(Some(SETTLE)));
    }
    let reported = report.is_some_and(|report| report.class == FailureClass::Completed);
    let (class, message) = if reported {
        (FailureClass::Completed, "training is complete")
    } else {
        (
            FailureClass::Bug,
            "the Job is complete, but rank 0 did not report completion",
        )
    };
    let pod = observed
        .pods
        .iter()
        .map(|child| &child.object)
        .find(|pod| pod.index() == 0);
    Some(ended_by(
        input,
        Verdict {
            class,
            message: message.to_owned(),
            exit_code: Some(0),
            rank: Some(0),
            pod_name: pod.map(|pod| pod.name().to_owned()),
            node_name: pod.and_then(|pod| pod.spec.node_name.clone()),
            log_tail: None,
        },
    ))
}
