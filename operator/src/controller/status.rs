//! Status as it should be after a decision: previous status, what was seen and what was
//! decided, folded. Pure; the clock is an input.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vlft_crds::VLFineTuneStatus;
use vlft_crds::contract::{CheckpointReport, Progress, TerminationReport, truncate_end};
use vlft_crds::parallelism::Strategy;
use vlft_crds::plan::preflight::MemoryCheck;
use vlft_crds::status::{
    Attempt, CheckpointStatus, FailureClass, MAX_ADJUSTMENTS, MAX_ATTEMPTS, MAX_MESSAGE_BYTES,
    Phase, ProgressStatus, ResultStatus,
};
use vlft_crds::uri::Uri;
use vlft_crds::workers::Device;

use super::build::names;
use super::decide::{Action, Decision, Ending, Input, after};

mod conditions;
mod lost_work;

/// How many of the newest attempts keep the log tail of their verdict: status is to stay
/// below 64 KiB.
const ATTEMPTS_WITH_LOG: usize = 8;

/// Status after a decision. `started` tells that the Job of the attempt exists since then.
pub fn next_status(input: &Input, decision: &Decision, started: Option<Time>) -> VLFineTuneStatus {
    let mut status = input.status.clone();
    status.observed_generation = input.finetune.metadata.generation;
    let workers = &input.finetune.spec.workers;
    status.gpus = workers.replicas * workers.gpus_per_replica();
    note_attempt(&mut status, input, started);
    note_progress(&mut status, input);
    lost_work::note(&mut status, input);
    note_memory(&mut status, input);
    match &decision.action {
        Action::Claim => claim(&mut status, input),
        Action::End(ending) => end(&mut status, input, ending),
        _ => {}
    }
    let was_final = input.status.phase.is_final();
    if !was_final {
        status.phase = decision.phase;
        status.reason = Some(decision.reason.to_owned());
        if decision.phase.is_final() {
            status.completion_time = Some(Time(input.now));
        }
    }
    conditions::update(&mut status, input, decision);
    status
}

/// Whether the two differ in nothing but how far training has come.
pub fn differ_in_progress_only(old: &VLFineTuneStatus, new: &VLFineTuneStatus) -> bool {
    let mut new = new.clone();
    new.progress.clone_from(&old.progress);
    new.last_checkpoint.clone_from(&old.last_checkpoint);
    if let (Some(new), Some(old)) = (new.attempts.last_mut(), old.attempts.last()) {
        new.last_step = old.last_step;
    }
    new == *old && old.progress.is_some()
}

/// When progress may be written again.
pub fn next_progress_write(status: &VLFineTuneStatus, interval: Duration) -> Option<Time> {
    let written = status.progress.as_ref()?.updated_at.as_ref()?;
    Some(Time(after(written.0, interval)))
}

fn current_attempt(status: &mut VLFineTuneStatus) -> Option<&mut Attempt> {
    let number = status.attempt;
    status
        .attempts
        .iter_mut()
        .rev()
        .find(|attempt| attempt.number == number)
}

/// What is known of the run's memory, as long as that decides anything: a running attempt keeps
/// the estimate it was started with.
fn memory_check<'a>(input: &Input<'a>) -> Option<&'a MemoryCheck> {
    if input.observed.job.is_some() || input.finetune.spec.workers.device == Device::Cpu {
        return None;
    }
    match input.valid {
        Ok(valid) => Some(&valid.memory),
        Err(rejection) => rejection.memory.as_deref(),
    }
}

fn note_memory(status: &mut VLFineTuneStatus, input: &Input) {
    if let Some(memory) = memory_check(input) {
        status.memory_estimate = memory.estimate();
    }
}

/// When the attempt's Job came to be, and what the attempt resumed from.
fn note_attempt(status: &mut VLFineTuneStatus, input: &Input, started: Option<Time>) {
    let seen = input
        .observed
        .job
        .as_ref()
        .and_then(|job| job.metadata.creation_timestamp.clone());
    let started = started.or(seen);
    if status.start_time.is_none() {
        status.start_time.clone_from(&started);
    }
    let progress = input.progress();
    if let Some(attempt) = current_attempt(status) {
        if attempt.start_time.is_none() {
            attempt.start_time = started;
        }
        if let Some(progress) = progress {
            attempt.last_step = attempt.last_step.max(Some(progress.step));
            if progress.resumed_from.is_some() {
                attempt.resumed_from = progress.resumed_from;
            }
        }
    }
}

fn note_progress(status: &mut VLFineTuneStatus, input: &Input) {
    let Some(progress) = input.progress() else {
        return;
    };
    let mut next = progress_status(&progress);
    if let Some(previous) = &status.progress {
        next.updated_at.clone_from(&previous.updated_at);
    }
    if status.progress.as_ref() != Some(&next) {
        next.updated_at = Some(Time(input.now));
        status.progress = Some(next);
    }
    if let Some(checkpoint) = &progress.last_checkpoint {
        note_checkpoint(status, input, checkpoint);
    }
}

fn note_checkpoint(status: &mut VLFineTuneStatus, input: &Input, checkpoint: &CheckpointReport) {
    let known = status.last_checkpoint.as_ref();
    if known.is_some_and(|k| k.step == checkpoint.step && k.digest == checkpoint.digest) {
        return;
    }
    if let Some(path) = claim_uri(checkpoint_claim(input), &checkpoint.path) {
        status.last_checkpoint = Some(CheckpointStatus {
            step: checkpoint.step,
            path,
            digest: checkpoint.digest.clone(),
            time: checkpoint.time.parse().ok().map(Time),
        });
    }
}

fn claim(status: &mut VLFineTuneStatus, input: &Input) {
    let verdict = input.attempt().and_then(|attempt| attempt.verdict.as_ref());
    if verdict.is_some_and(|verdict| verdict.class != FailureClass::Suspended) {
        status.restarts += 1;
    }
    status.attempt += 1;
    let name = input.finetune.metadata.name.as_deref().unwrap_or_default();
    status.attempts.push(Attempt {
        number: status.attempt,
        job_name: names::attempt(name, status.attempt),
        micro_batch_size: decided_micro_batch(input),
        strategy: decided_strategy(input),
        ..Attempt::default()
    });
    let surplus = status.attempts.len().saturating_sub(MAX_ATTEMPTS);
    status.attempts.drain(..surplus);
    let without_log = status.attempts.len().saturating_sub(ATTEMPTS_WITH_LOG);
    for verdict in status
        .attempts
        .iter_mut()
        .take(without_log)
        .filter_map(|a| a.verdict.as_mut())
    {
        verdict.log_tail = None;
    }
}

/// The micro-batch that the estimate or an out-of-memory chose; a given one needs no record.
fn decided_micro_batch(input: &Input) -> Option<i64> {
    let valid = input.valid.ok()?;
    let decided = valid.spec.training.micro_batch_size;
    decided.filter(|_| decided != input.finetune.spec.training.micro_batch_size)
}

fn decided_strategy(input: &Input) -> Option<Strategy> {
    let decided = input.valid.ok()?.spec.parallelism.strategy;
    (decided != input.finetune.spec.parallelism.strategy).then_some(decided)
}

fn end(status: &mut VLFineTuneStatus, input: &Input, ending: &Ending) {
    let mut verdict = ending.verdict.clone();
    truncate_end(&mut verdict.message, MAX_MESSAGE_BYTES);
    let completed = verdict.class == FailureClass::Completed;
    if let Some(attempt) = current_attempt(status) {
        attempt.verdict = Some(verdict);
        attempt.end_time = Some(Time(input.now));
    }
    status.failures += i64::from(ending.counted);
    *status
        .ended
        .entry(ending.verdict.class.as_str().to_owned())
        .or_insert(0) += 1;
    status.adjustments.extend(ending.adjustment.clone());
    let surplus = status.adjustments.len().saturating_sub(MAX_ADJUSTMENTS);
    status.adjustments.drain(..surplus);
    if let Some(report) = input.observed.rank_zero_report().filter(|_| completed) {
        status.result = Some(result(input, &report));
    }
    // An ended attempt has no time left to tell.
    if let Some(progress) = &mut status.progress {
        progress.eta = None;
    }
}

fn result(input: &Input, report: &TerminationReport) -> ResultStatus {
    let path = report.model_path.as_deref().unwrap_or_default();
    let metrics = report.metrics.iter().take(16);
    ResultStatus {
        model_uri: claim_uri(checkpoint_claim(input), path).unwrap_or_default(),
        final_loss: report.final_loss.map(decimal),
        validation_loss: report.validation_loss.map(decimal),
        metrics: metrics
            .map(|(name, value)| (name.clone(), decimal(*value)))
            .collect(),
    }
}

fn checkpoint_claim(input: &Input) -> String {
    let volume = &input.finetune.spec.checkpoint.volume;
    let name = input.finetune.metadata.name.as_deref().unwrap_or_default();
    volume
        .claim_name
        .clone()
        .unwrap_or_else(|| names::checkpoint_claim(name))
}

/// `pvc://CLAIM/PATH`, if the path stays on the volume.
fn claim_uri(claim: String, path: &str) -> Option<String> {
    let uri = format!("pvc://{claim}/{}", path.trim_start_matches('/'));
    Uri::parse(&uri).ok().map(|uri| uri.to_string())
}

fn progress_status(progress: &Progress) -> ProgressStatus {
    let percent = match progress.total_steps {
        0 => 0,
        total => progress.step.min(total).saturating_mul(100) / total,
    };
    ProgressStatus {
        step: progress.step,
        total_steps: progress.total_steps,
        percent: format!("{percent}%"),
        epoch: Some(format!("{:.2}", progress.epoch)),
        loss: progress.loss.map(decimal),
        learning_rate: progress.learning_rate.map(|rate| format!("{rate:.3e}")),
        tokens_per_second: progress.tokens_per_second.map(|rate| format!("{rate:.1}")),
        images_per_second: progress.images_per_second.map(|rate| format!("{rate:.2}")),
        peak_memory_bytes: progress.peak_memory_bytes,
        eta: progress.eta_seconds.map(duration),
        updated_at: None,
    }
}

fn decimal(value: f64) -> String {
    format!("{value:.6}")
}

/// Seconds as `1h2m3s`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.min(1e9) as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// The phase in which nothing is known yet.
pub fn initial() -> VLFineTuneStatus {
    VLFineTuneStatus {
        phase: Phase::Pending,
        ..VLFineTuneStatus::default()
    }
}

/// A message within its bound.
fn bounded(mut message: String) -> String {
    truncate_end(&mut message, MAX_MESSAGE_BYTES);
    message
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
