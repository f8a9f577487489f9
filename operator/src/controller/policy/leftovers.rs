//! What is left of an attempt that has its verdict: nothing new starts before it is gone.

use vlft_crds::status::{FailureClass, Phase};

use crate::controller::decide::{Action, CutShort, Decision, Input};
use crate::controller::observe::TrainerPod;

/// What a trainer needs to be told to stop and to stop, when it has nobody to agree with.
const WITHOUT_PEERS_SECONDS: u32 = 5;

/// Deletes the Job and waits for its pods.
pub fn clear(input: &Input) -> Option<Decision> {
    let observed = input.observed;
    let job = observed.job.as_ref().filter(|job| !job.is_terminal());
    let alive = observed.pods_alive().count();
    if job.is_none() && alive == 0 {
        return None;
    }
    let verdict = input.attempt().and_then(|attempt| attempt.verdict.as_ref());
    let class = verdict.map(|verdict| verdict.class);
    let phase = match (input.status.phase.is_final(), class) {
        (true, _) => input.status.phase,
        (false, Some(FailureClass::Suspended)) => Phase::Suspending,
        (false, _) => Phase::Restarting,
    };
    let action = Action::Clear {
        delete_job: job.is_some_and(|job| !job.is_being_deleted()),
        cut_short: cut_short(input, class),
    };
    let reason = class.map_or("Stopping", FailureClass::as_str);
    let message = format!(
        "{alive} pods of attempt {} are still ending",
        input.status.attempt
    );
    Some(Decision::note(phase, reason, message).with(action))
}

/// Pods that no kubelet will ever confirm as ended; and their peers, who would spend all of their
/// grace period waiting to agree with them on a last checkpoint.
fn cut_short(input: &Input, class: Option<FailureClass>) -> Vec<CutShort> {
    let observed = input.observed;
    let of = |pod: &TrainerPod, grace_seconds| CutShort {
        pod: pod.name().to_owned(),
        grace_seconds,
    };
    let pods = observed.pods_alive();
    pods.filter_map(|pod| match observed.is_on_lost_node(pod) {
        true => Some(of(pod, 0)),
        false if class != Some(FailureClass::NodeLost) => None,
        false => (pod.grace_seconds() > i64::from(WITHOUT_PEERS_SECONDS))
            .then(|| of(pod, WITHOUT_PEERS_SECONDS)),
    })
    .collect()
}
