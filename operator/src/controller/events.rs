//! Events: what changed between two statuses, told to whoever asks `kubectl describe`.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};
use vlft_crds::contract::{label, truncate_end};
use vlft_crds::plan::preflight::ESTIMATE_EXCEEDS_GPU;
use vlft_crds::status::{FailureClass, Phase, condition};
use vlft_crds::{VLFineTune, VLFineTuneStatus};

use super::Context;

/// Longest note that the API server takes, bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// One event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub warning: bool,
    pub reason: String,
    pub message: String,
    /// Tells events of the same words apart.
    pub attempt: i64,
}

/// What became of the resource between two statuses. (no client)
pub fn between(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Vec<Note> {
    let mut notes = Vec::new();
    notes.extend(rejection(old, new));
    notes.extend(blocked(old, new));
    notes.extend(at_risk(old, new));
    notes.extend(adjusted(old, new));
    notes.extend(started(old, new));
    notes.extend(ended(old, new));
    notes.extend(phase(old, new));
    notes
}

fn note(new: &VLFineTuneStatus, warning: bool, reason: &str, message: &str) -> Note {
    Note {
        warning,
        reason: reason.to_owned(),
        message: message.to_owned(),
        attempt: new.attempt,
    }
}

fn condition_of<'a>(status: &'a VLFineTuneStatus, kind: &str) -> Option<&'a Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// A condition that is False for another reason than before.
fn newly_false<'a>(
    old: &VLFineTuneStatus,
    new: &'a VLFineTuneStatus,
    kind: &str,
) -> Option<&'a Condition> {
    let words = |c: &Condition| (c.status.clone(), c.reason.clone(), c.message.clone());
    let now = condition_of(new, kind).filter(|condition| condition.status == "False")?;
    (condition_of(old, kind).map(words) != Some(words(now))).then_some(now)
}

fn rejection(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Option<Note> {
    let rejected = newly_false(old, new, condition::ACCEPTED)?;
    Some(note(new, true, &rejected.reason, &rejected.message))
}

/// The estimate exceeds the GPU; a refusal is told by [`rejection`].
fn at_risk(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Option<Note> {
    let now = condition_of(new, condition::MEMORY_AT_RISK)?;
    let before = condition_of(old, condition::MEMORY_AT_RISK);
    let new_words = before.map(|c| (&c.status, &c.message)) != Some((&now.status, &now.message));
    let risky = now.status == "True" && now.reason == ESTIMATE_EXCEEDS_GPU;
    (risky && new_words).then(|| note(new, true, condition::MEMORY_AT_RISK, &now.message))
}

/// What the next attempt changes after an out-of-memory.
fn adjusted(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Option<Note> {
    let adjustment = new.adjustments.last()?;
    let known = old.adjustments.contains(adjustment);
    let message = format!(
        "attempt {} runs with {} {} instead of {}",
        adjustment.attempt, adjustment.field, adjustment.to, adjustment.from
    );
    (!known).then(|| note(new, false, "Adjusted", &message))
}

/// Children that could not be created.
fn blocked(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Option<Note> {
    let blocked = newly_false(old, new, condition::READY_TO_START)?;
    let is_error = matches!(blocked.reason.as_str(), "Refused" | "NameTaken");
    is_error.then(|| note(new, true, &blocked.reason, &blocked.message))
}

fn started(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Option<Note> {
    let attempt = new
        .attempts
        .last()
        .filter(|attempt| attempt.start_time.is_some())?;
    let before = old.attempts.iter().find(|a| a.number == attempt.number);
    let known = before.is_some_and(|before| before.start_time.is_some());
    let message = format!(
        "attempt {} runs as Job {}",
        attempt.number, attempt.job_name
    );
    (!known).then(|| note(new, false, "AttemptStarted", &message))
}

fn ended(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Option<Note> {
    let attempt = new.attempts.last()?;
    let verdict = attempt.verdict.as_ref()?;
    let before = old.attempts.iter().find(|a| a.number == attempt.number);
    if before.is_some_and(|before| before.verdict.is_some()) {
        return None;
    }
    let expected = matches!(
        verdict.class,
        FailureClass::Completed | FailureClass::Suspended
    );
    let message = format!("attempt {}: {}", attempt.number, verdict.message);
    Some(note(new, !expected, verdict.class.as_str(), &message))
}

/// Phases people wait for.
fn phase(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> Option<Note> {
    if old.phase == new.phase {
        return None;
    }
    match new.phase {
        Phase::Running => {
            let message = format!("all pods of attempt {} run", new.attempt);
            Some(note(new, false, "Running", &message))
        }
        Phase::Suspended => Some(note(new, false, "Suspended", "the run is stopped")),
        Phase::Failed => {
            let failed = condition_of(new, condition::FAILED)?;
            // The end of the attempt may just have been told in the same words.
            let told = ended(old, new).is_some_and(|ended| ended.reason == failed.reason);
            (!told).then(|| note(new, true, &failed.reason, &failed.message))
        }
        _ => None,
    }
}

/// Publishes events. One that cannot be written is logged and not tried again: status holds
/// the truth. (client)
pub async fn publish(ctx: &Context, finetune: &VLFineTune, notes: &[Note]) {
    let api: Api<Event> = ctx.api(finetune);
    for note in notes {
        tell(finetune, note);
        let event = event(finetune, note, &ctx.identity, Timestamp::now());
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {}
            // The name is made from the content: it has been told before.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => tracing::warn!(%error, reason = note.reason, "event not written"),
        }
    }
}

/// The same to whoever reads the log.
fn tell(finetune: &VLFineTune, note: &Note) {
    let (name, namespace) = (finetune.name_any(), finetune.namespace());
    let Note {
        warning: _,
        reason,
        message,
        attempt,
    } = note;
    tracing::info!(namespace, name, attempt, reason, note = message, "event");
}

fn event(finetune: &VLFineTune, note: &Note, identity: &str, now: Timestamp) -> Event {
    let mut message = note.message.clone();
    truncate_end(&mut message, MAX_NOTE_BYTES);
    let mut hasher = DefaultHasher::new();
    (&finetune.metadata.uid, &note.reason, &message, note.attempt).hash(&mut hasher);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", finetune.name_any(), hasher.finish())),
            namespace: finetune.namespace(),
            ..ObjectMeta::default()
        },
        action: Some("Reconcile".to_owned()),
        event_time: Some(MicroTime(now)),
        regarding: Some(finetune.object_ref(&())),
        reason: Some(note.reason.clone()),
        note: Some(message),
        reporting_controller: Some(format!("vlft.dev/{}", label::MANAGED_BY_VALUE)),
        reporting_instance: Some(identity.to_owned()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}
