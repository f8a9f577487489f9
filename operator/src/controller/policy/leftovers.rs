//! What is left of an attempt that has its verdict: nothing new starts before it is gone.

use vlft_crds::status::{FailureClass, Phase};

use crate::controller::decide::{Action, Decision, Input};

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
        force_pods: observed.pods_on_lost_nodes(),
    };
    let reason = class.map_or("Stopping", FailureClass::as_str);
    let message = format!(
        "{alive} pods of attempt {} are still ending",
        input.status.attempt
    );
    Some(Decision::note(phase, reason, message).with(action))
}
