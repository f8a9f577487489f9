//! Nodes that fell silent under a running attempt.

use std::time::Duration;

use vlft_crds::status::FailureClass;

use super::retry::ended_by;
use crate::controller::decide::{Decision, Input, after, until};
use crate::controller::policy::failure::verdict_on;

/// A pod's node has been NotReady for `nodeLostTimeoutSeconds`.
pub fn lost(input: &Input) -> Option<Decision> {
    let mut alive = input.observed.pods_alive();
    let pod = alive.find(|pod| input.observed.is_on_lost_node(pod))?;
    let node = pod.spec.node_name.as_deref().unwrap_or_default();
    let seconds = input.finetune.spec.run_policy.node_lost_timeout_seconds;
    let message = format!("node `{node}` has been NotReady for {seconds} s");
    Some(ended_by(
        input,
        verdict_on(input, pod, FailureClass::NodeLost, message),
    ))
}

/// Time until a silent node counts as lost.
pub fn left(input: &Input) -> Option<Duration> {
    let timeout = timeout(input.finetune.spec.run_policy.node_lost_timeout_seconds);
    let silent = input
        .observed
        .pods_alive()
        .filter_map(|pod| pod.node_silent_since());
    silent
        .map(|since| until(input.now, after(since.0, timeout)))
        .min()
}

/// `nodeLostTimeoutSeconds` as a duration.
pub fn timeout(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}
