//! `runPolicy.activeDeadlineSeconds`, from the first start.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use vlft_crds::status::{FailureClass, Phase};

use super::retry::ended;
use crate::controller::decide::{Decision, Input, after, until};

pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// The run has had its time.
pub fn exceeded(input: &Input) -> Option<Decision> {
    let deadline = deadline(input)?;
    if input.now < deadline {
        return None;
    }
    let seconds = input
        .finetune
        .spec
        .run_policy
        .active_deadline_seconds
        .unwrap_or_default();
    let message = format!("runPolicy.activeDeadlineSeconds ({seconds} s) has passed");
    if input.is_open() {
        return Some(ended(input, FailureClass::DeadlineExceeded, message));
    }
    Some(Decision::note(Phase::Failed, DEADLINE_EXCEEDED, message))
}

/// Time left.
pub fn left(input: &Input) -> Option<Duration> {
    deadline(input).map(|deadline| until(input.now, deadline))
}

fn deadline(input: &Input) -> Option<Timestamp> {
    let seconds = input.finetune.spec.run_policy.active_deadline_seconds?;
    let start = input.status.start_time.as_ref()?;
    Some(after(start.0, Duration::from_secs(seconds.unsigned_abs())))
}
