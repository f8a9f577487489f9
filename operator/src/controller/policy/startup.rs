//! From a claimed attempt to running pods, and what can keep them from it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use vlft_crds::status::{FailureClass, Phase};

use super::failure::verdict_on;
use super::retry::ended_by;
use crate::controller::decide::{Action, Decision, Input, after, until};
use crate::controller::observe::TrainerPod;

pub const STARTING: &str = "Starting";
pub const RUNNING: &str = "Running";
pub const ENDING: &str = "Ending";

/// Waiting reasons of the kubelet that do not pass by themselves.
const FAILING: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ImageInspectError",
];

/// The claimed attempt has no Job yet.
pub fn build(input: &Input) -> Option<Decision> {
    if input.observed.job.is_some() {
        return None;
    }
    let message = format!("creating the children of attempt {}", input.status.attempt);
    Some(Decision::note(Phase::Starting, STARTING, message).with(Action::Build))
}

/// Image, configuration or mounts have been failing for too long.
pub fn stuck(input: &Input) -> Option<Decision> {
    let timeout = input.settings.startup_timeout;
    let pods = input.observed.pods_alive();
    let mut failing = pods.filter_map(|pod| Some((pod, failing(pod)?, since(pod)?)));
    let (pod, (reason, message), _) =
        failing.find(|(_, _, since)| after(*since, timeout) <= input.now)?;
    let message = format!("{reason} for {} s: {message}", timeout.as_secs());
    Some(ended_by(
        input,
        verdict_on(input, pod, FailureClass::Startup, message),
    ))
}

/// Time until failing pods count as stuck.
pub fn left(input: &Input) -> Option<Duration> {
    let pods = input
        .observed
        .pods_alive()
        .filter(|pod| failing(pod).is_some());
    let deadlines = pods.filter_map(|pod| Some(after(since(pod)?, input.settings.startup_timeout)));
    deadlines.map(|deadline| until(input.now, deadline)).min()
}

/// The first trainers have ended; their Job says in a moment what that means. A queue that
/// lets a stopped Job go on begins anew instead.
pub fn ending(input: &Input) -> Option<Decision> {
    let pods = input.observed.pods.iter();
    let over = pods
        .filter(|child| child.gone || child.object.has_ended())
        .count();
    if over == 0 || input.status.phase == Phase::Queued {
        return None;
    }
    let message = format!("{over} pods of attempt {} have ended", input.status.attempt);
    Some(Decision::note(input.status.phase, ENDING, message))
}

/// Not all pods run yet; says what they wait for.
pub fn starting(input: &Input) -> Option<Decision> {
    let wanted = usize::try_from(input.finetune.spec.workers.replicas).unwrap_or(usize::MAX);
    let pods: Vec<&TrainerPod> = input.observed.pods_alive().collect();
    let running = pods.iter().filter(|pod| pod.is_running()).count();
    if running >= wanted {
        return None;
    }
    let pending = pods.iter().find(|pod| !pod.is_running());
    let (reason, why) = match pending {
        Some(pod) => waits_for(pod),
        None => (STARTING, not_created(input)),
    };
    let message = format!("{running} of {wanted} pods run: {why}");
    Some(Decision::note(Phase::Starting, reason, message))
}

/// What keeps the Job controller from creating pods (a quota, pod security) only the Job's
/// own events tell.
fn not_created(input: &Input) -> String {
    let job = input
        .attempt()
        .map_or("", |attempt| attempt.job_name.as_str());
    format!("not all pods are created yet; `kubectl describe job {job}` says why, if that lasts")
}

/// All pods run.
pub fn running(input: &Input) -> Option<Decision> {
    let step = input.progress().filter(|progress| progress.step > 0);
    let message = match step {
        Some(_) => format!("attempt {} is training", input.status.attempt),
        None => format!("attempt {} is loading model and data", input.status.attempt),
    };
    Some(Decision::note(Phase::Running, RUNNING, message))
}

/// Reason and message of what a pod that does not run waits for.
fn waits_for(pod: &TrainerPod) -> (&'static str, String) {
    if let Some((reason, message)) = failing(pod) {
        return (
            "StartupFailing",
            format!("{}: {reason}: {message}", pod.name()),
        );
    }
    let scheduled = pod
        .condition("PodScheduled")
        .filter(|condition| condition.status == "False");
    if let Some(condition) = scheduled {
        let message = condition.message.as_deref().unwrap_or("no node fits");
        return ("Unschedulable", format!("{}: {message}", pod.name()));
    }
    let waiting = pod.waiting().and_then(|waiting| waiting.reason.as_deref());
    (
        STARTING,
        format!("{}: {}", pod.name(), waiting.unwrap_or("Pending")),
    )
}

fn failing(pod: &TrainerPod) -> Option<(&str, &str)> {
    let waiting = pod.waiting()?;
    let reason = waiting
        .reason
        .as_deref()
        .filter(|reason| FAILING.contains(reason))?;
    Some((reason, waiting.message.as_deref().unwrap_or_default()))
}

/// Since when a pod could have started: when it was scheduled.
fn since(pod: &TrainerPod) -> Option<Timestamp> {
    let scheduled = pod.condition("PodScheduled")?;
    Some(scheduled.last_transition_time.as_ref()?.0)
}
