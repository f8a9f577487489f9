//! What follows the end of an attempt: another one, after a pause, or the end of the run.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use vlft_crds::status::{Adjustment, Attempt, FailureClass, Phase, Verdict};

use super::oom::{self, Answer};
use crate::controller::decide::{Action, Decision, Ending, Input, after, until};

pub const BACKOFF_LIMIT_EXCEEDED: &str = "BackoffLimitExceeded";
pub const BACK_OFF: &str = "BackOff";
pub const CLAIMED: &str = "AttemptClaimed";

/// Longest pause between two attempts.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);

/// Ends the current attempt for a cause that no pod tells.
pub fn ended(input: &Input, class: FailureClass, message: String) -> Decision {
    let verdict = Verdict {
        class,
        message,
        exit_code: None,
        rank: None,
        pod_name: None,
        node_name: None,
        log_tail: None,
    };
    ended_by(input, verdict)
}

/// Ends the current attempt; phase and reason tell what follows.
pub fn ended_by(input: &Input, verdict: Verdict) -> Decision {
    let class = verdict.class;
    let answer = oom::answer(input, class, &verdict.message);
    let counted = is_counted(input, class) && !matches!(answer, Answer::Adapt(_));
    let words = format!(
        "attempt {}: {}: {}",
        input.status.attempt,
        class.as_str(),
        verdict.message
    );
    let given_up = given_up(input, class, counted, &answer);
    let (phase, reason, message) = match (class, given_up) {
        (FailureClass::Completed, _) => (Phase::Succeeded, class.as_str(), verdict.message.clone()),
        (FailureClass::Suspended, _) => {
            (Phase::Suspending, class.as_str(), verdict.message.clone())
        }
        (_, Some((reason, why))) => (Phase::Failed, reason, format!("{words}{why}")),
        (_, None) => (Phase::Restarting, class.as_str(), words),
    };
    let adjustment = match answer {
        Answer::Adapt(adjustment) if phase == Phase::Restarting => Some(adjustment),
        _ => None,
    };
    let ending = Ending {
        verdict,
        counted,
        adjustment,
    };
    Decision::note(phase, reason, message).with(Action::End(Box::new(ending)))
}

/// Why no other attempt follows: a reason, and what is added to the message.
fn given_up(
    input: &Input,
    class: FailureClass,
    counted: bool,
    answer: &Answer,
) -> Option<(&'static str, String)> {
    let policy = &input.finetune.spec.run_policy;
    if class.is_permanent() {
        return Some((class.as_str(), String::new()));
    }
    if *answer == Answer::Exhausted {
        let why = " (given up: nothing is left that could be reduced; use a GPU or a pod with \
                   more memory, or allow runPolicy.oomMayReduce)";
        return Some((class.as_str(), why.to_owned()));
    }
    let limits = policy.backoff_limit_per_class.iter();
    let limit = limits
        .filter(|budget| budget.class == class)
        .map(|b| b.limit);
    let ended = input.status.ended.get(class.as_str()).copied().unwrap_or(0) + 1;
    if let Some(limit) = limit.min().filter(|limit| ended > *limit) {
        let why = format!(
            " (given up: more than {limit} attempts ended as {})",
            class.as_str()
        );
        return Some((BACKOFF_LIMIT_EXCEEDED, why));
    }
    let failures = input.status.failures + i64::from(counted);
    if counted && failures > policy.backoff_limit {
        let limit = policy.backoff_limit;
        let why = format!(" (given up: more than {limit} failed attempts)");
        return Some((BACKOFF_LIMIT_EXCEEDED, why));
    }
    None
}

/// Disruptions are free as long as the run advances.
fn is_counted(input: &Input, class: FailureClass) -> bool {
    match class {
        FailureClass::Completed | FailureClass::Suspended => false,
        _ if class.is_disruption() => !has_advanced(input),
        _ => true,
    }
}

/// Whether this attempt went further than any before it.
fn has_advanced(input: &Input) -> bool {
    let recorded = input.attempt().and_then(|attempt| attempt.last_step);
    let seen = input.progress().map(|progress| progress.step);
    let current = recorded.max(seen).unwrap_or(0);
    let before = input
        .status
        .attempts
        .iter()
        .filter(|a| a.number < input.status.attempt);
    current
        > before
            .filter_map(|attempt| attempt.last_step)
            .max()
            .unwrap_or(0)
}

/// Waits before the next attempt.
pub fn back_off(input: &Input) -> Option<Decision> {
    let until_then = next_start(input)?;
    if until_then <= input.now {
        return None;
    }
    let message = format!(
        "next attempt at {}",
        until_then.strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    let decision = Decision::note(Phase::Restarting, BACK_OFF, message);
    Some(decision.wake(Some(until(input.now, until_then))))
}

/// Claims the next attempt.
pub fn claim(input: &Input) -> Option<Decision> {
    let message = format!("attempt {}", input.status.attempt + 1);
    let phase = match input.attempt() {
        Some(_) => Phase::Restarting,
        None => Phase::Pending,
    };
    Some(Decision::note(phase, CLAIMED, message).with(Action::Claim))
}

fn next_start(input: &Input) -> Option<Timestamp> {
    let last = input.attempt()?;
    let end = last.end_time.as_ref()?;
    let adjustments = input.status.adjustments.iter();
    let changed = |adjustment: &Adjustment| adjustment.attempt > last.number;
    let fruitless = match adjustments.rev().take(1).any(changed) {
        // Another plan is not another try of the same.
        true => 0,
        false => fruitless_attempts(&input.status.attempts),
    };
    Some(after(
        end.0,
        pause(input.settings.restart_backoff, fruitless),
    ))
}

/// How many of the newest attempts failed without going further than those before them.
fn fruitless_attempts(attempts: &[Attempt]) -> u32 {
    let mut count = 0;
    for (i, attempt) in attempts.iter().enumerate().rev() {
        let class = attempt.verdict.as_ref().map(|verdict| verdict.class);
        let before = attempts
            .iter()
            .take(i)
            .filter_map(|attempt| attempt.last_step)
            .max();
        let advanced = attempt.last_step.unwrap_or(0) > before.unwrap_or(0);
        if advanced || matches!(class, None | Some(FailureClass::Suspended)) {
            break;
        }
        count += 1;
    }
    count
}

/// The first restart is immediate; from the second fruitless attempt on, the pause doubles.
fn pause(base: Duration, fruitless: u32) -> Duration {
    match fruitless {
        0 | 1 => Duration::ZERO,
        n => base
            .saturating_mul(1 << (n - 2).min(16))
            .min(LONGEST_BACK_OFF.max(base)),
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
