//! Conditions: each speaks of the generation that was observed, and its transition time moves
//! only when its status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use vlft_crds::VLFineTuneStatus;
use vlft_crds::plan::preflight::Outcome;
use vlft_crds::status::{Phase, condition};

use super::{bounded, memory_check};
use crate::controller::decide::{Action, Decision, Input};

/// A condition's content.
struct Content {
    status: &'static str,
    reason: String,
    message: String,
}

fn is(wanted: bool, reason: impl Into<String>, message: impl Into<String>) -> Content {
    let status = if wanted { "True" } else { "False" };
    Content {
        status,
        reason: reason.into(),
        message: message.into(),
    }
}

/// Brings all conditions up to date.
pub fn update(status: &mut VLFineTuneStatus, input: &Input, decision: &Decision) {
    let contents = [
        (condition::ACCEPTED, Some(accepted(input))),
        (condition::READY_TO_START, ready_to_start(status, decision)),
        (condition::ADMITTED, admitted(input)),
        (condition::RUNNING, running(status, input, decision)),
        (condition::SUSPENDED, suspended(status, decision)),
        (condition::EXACT_RESUME, exact_resume(input)),
        (condition::MEMORY_AT_RISK, memory_at_risk(input)),
        (
            condition::COMPLETE,
            ended(status, input, decision, Phase::Succeeded),
        ),
        (
            condition::FAILED,
            ended(status, input, decision, Phase::Failed),
        ),
    ];
    for (kind, content) in contents {
        if let Some(content) = content {
            put(&mut status.conditions, kind, content, input);
        }
    }
}

fn put(conditions: &mut Vec<Condition>, kind: &str, content: Content, input: &Input) {
    let known = conditions
        .iter_mut()
        .find(|condition| condition.type_ == kind);
    let since = match &known {
        Some(known) if known.status == content.status => known.last_transition_time.clone(),
        _ => Time(input.now),
    };
    let next = Condition {
        type_: kind.to_owned(),
        status: content.status.to_owned(),
        reason: content.reason,
        message: bounded(content.message),
        last_transition_time: since,
        observed_generation: input.finetune.metadata.generation,
    };
    match known {
        Some(known) => *known = next,
        None => conditions.push(next),
    }
}

fn accepted(input: &Input) -> Content {
    match input.valid {
        Ok(_) => is(true, "Valid", "the spec is valid and supported"),
        Err(rejection) => is(false, rejection.reason, rejection.message.clone()),
    }
}

fn ready_to_start(status: &VLFineTuneStatus, decision: &Decision) -> Option<Content> {
    let attempt = status.attempts.last()?;
    if attempt.start_time.is_some() {
        return Some(is(
            true,
            "ChildrenCreated",
            format!("Job {} exists", attempt.job_name),
        ));
    }
    Some(match decision.action {
        Action::Claim => is(
            false,
            "CreatingChildren",
            format!("Job {} is next", attempt.job_name),
        ),
        _ => is(false, decision.reason, decision.message.clone()),
    })
}

fn admitted(input: &Input) -> Option<Content> {
    let queue = input.finetune.spec.scheduling.queue_name.as_ref()?;
    let job = input.observed.job.as_ref()?;
    Some(match job.is_suspended() {
        true => is(false, "Queued", format!("waiting for the queue `{queue}`")),
        false => is(true, "Admitted", format!("admitted by the queue `{queue}`")),
    })
}

fn running(status: &VLFineTuneStatus, input: &Input, decision: &Decision) -> Option<Content> {
    let never_started = status.attempt == 0;
    if never_started || input.status.phase.is_final() {
        return None;
    }
    Some(is(
        decision.phase == Phase::Running,
        decision.reason,
        decision.message.clone(),
    ))
}

/// Appears with the first suspension.
fn suspended(status: &VLFineTuneStatus, decision: &Decision) -> Option<Content> {
    let known = status
        .conditions
        .iter()
        .any(|known| known.type_ == condition::SUSPENDED);
    match decision.phase {
        Phase::Suspended => Some(is(true, decision.reason, decision.message.clone())),
        Phase::Suspending => Some(is(false, "Suspending", decision.message.clone())),
        _ if known => Some(is(false, "Resumed", "runPolicy.suspend is false")),
        _ => None,
    }
}

fn exact_resume(input: &Input) -> Option<Content> {
    let progress = input.progress()?;
    let step = progress.resumed_from.as_ref()?.step;
    Some(match progress.exact_resume? {
        true => is(
            true,
            "BitForBit",
            format!("continued bit for bit from step {step}"),
        ),
        false => is(
            false,
            "EnvironmentDiffers",
            format!(
                "continued from step {step} in another environment; results may differ in rounding"
            ),
        ),
    })
}

/// Speaks of GPUs alone; `Unknown` says why nothing can be said.
fn memory_at_risk(input: &Input) -> Option<Content> {
    let memory = memory_check(input)?;
    let status = match memory.outcome {
        Outcome::Unknown => "Unknown",
        Outcome::Fits => "False",
        Outcome::AtRisk | Outcome::Exceeds => "True",
    };
    Some(Content {
        status,
        reason: memory.reason.to_owned(),
        message: memory.message.clone(),
    })
}

/// `Complete` and `Failed` appear at the end alone.
fn ended(
    status: &VLFineTuneStatus,
    input: &Input,
    decision: &Decision,
    phase: Phase,
) -> Option<Content> {
    let newly = status.phase == phase && input.status.phase != phase;
    newly.then(|| is(true, decision.reason, decision.message.clone()))
}
