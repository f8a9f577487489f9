//! What is to be done, from what is wanted and what is seen: an ordered list of rules, of
//! which the first that applies decides. Pure: the clock is an input.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use vlft_crds::VLFineTune;
use vlft_crds::VLFineTuneStatus;
use vlft_crds::contract::Progress;
use vlft_crds::status::{Adjustment, Attempt, Phase, Verdict};

use super::observe::Observed;
use super::policy::{
    admission, deadline, failure, leftovers, node_lost, queue, retry, startup, success, suspend,
    ttl,
};
use super::validate::{Rejection, ValidatedFineTune};

/// Everything a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub finetune: &'a VLFineTune,
    pub status: &'a VLFineTuneStatus,
    pub valid: Result<&'a ValidatedFineTune, &'a Rejection>,
    pub observed: &'a Observed,
    pub settings: &'a Settings,
    pub now: Timestamp,
}

/// What the operator was started with, as far as rules need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Wait before the second restart without a new step in between; doubled from then on.
    pub restart_backoff: Duration,
    /// How long images and volumes may fail before the attempt has failed.
    pub startup_timeout: Duration,
}

/// What follows from one look at a VLFineTune.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub phase: Phase,
    /// The rule that fired, as a CamelCase reason.
    pub reason: &'static str,
    pub message: String,
    pub action: Action,
    /// When to look again, if nothing happens before.
    pub wake: Option<Duration>,
}

/// A pod that is not to use its whole grace period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutShort {
    pub pod: String,
    /// 0 means: gone at once, whatever its kubelet says.
    pub grace_seconds: u32,
}

/// What is done about it.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing but keeping status up to date.
    Note,
    /// Write the next attempt into status; it is built once that has been read back.
    Claim,
    /// Create the children of the claimed attempt.
    Build,
    /// Write how the current attempt ended.
    End(Box<Ending>),
    /// Delete the Job of an attempt that has its verdict, and some of its pods faster than their
    /// grace period allows.
    Clear {
        delete_job: bool,
        cut_short: Vec<CutShort>,
    },
    /// Delete the children of a finished run.
    Expire,
    /// Delete the finished resource itself.
    DeleteResource,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    pub verdict: Verdict,
    /// Whether it counts against `backoffLimit`.
    pub counted: bool,
    /// What the next attempt changes after an out-of-memory.
    pub adjustment: Option<Adjustment>,
}

impl Decision {
    pub fn note(phase: Phase, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            phase,
            reason,
            message: message.into(),
            action: Action::Note,
            wake: None,
        }
    }

    pub fn with(self, action: Action) -> Self {
        Self { action, ..self }
    }

    pub fn wake(self, after: Option<Duration>) -> Self {
        Self {
            wake: after,
            ..self
        }
    }
}

impl<'a> Input<'a> {
    /// The record of the current attempt.
    pub fn attempt(&self) -> Option<&'a Attempt> {
        let current = self.status.attempt;
        self.status
            .attempts
            .iter()
            .rev()
            .find(|attempt| attempt.number == current)
    }

    /// Whether an attempt is claimed that has not ended.
    pub fn is_open(&self) -> bool {
        self.attempt()
            .is_some_and(|attempt| attempt.verdict.is_none())
    }

    /// Where the current attempt stands. Once it has ended, only its report counts: an older
    /// answer of the running trainer must not turn status back.
    pub fn progress(&self) -> Option<Progress> {
        let latest = self.observed.latest_progress();
        latest.filter(|_| self.is_open() || self.observed.rank_zero_report().is_some())
    }
}

type Rule = fn(&Input) -> Option<Decision>;

/// Rules for an attempt without a verdict.
const OPEN: &[Rule] = &[
    success::completed,
    failure::failed,
    failure::job_deleted,
    deadline::exceeded,
    suspend::stop,
    node_lost::lost,
    startup::stuck,
    admission::rejected_before_build,
    startup::build,
    queue::queued,
    startup::ending,
    startup::starting,
    startup::running,
];

/// Rules between attempts.
const CLOSED: &[Rule] = &[
    leftovers::clear,
    deadline::exceeded,
    suspend::suspended,
    admission::rejected,
    retry::back_off,
    retry::claim,
];

/// Rules for a finished run.
const FINISHED: &[Rule] = &[
    leftovers::clear,
    ttl::delete_resource,
    ttl::expire,
    ttl::rest,
];

/// The first rule that applies.
pub fn decide(input: &Input) -> Decision {
    let status = input.status;
    if input.finetune.metadata.deletion_timestamp.is_some() {
        // Children go by their owner references, and each trainer checkpoints on SIGTERM.
        return Decision::note(
            status.phase,
            "BeingDeleted",
            "the resource is being deleted",
        );
    }
    let rules = match (status.phase.is_final(), input.is_open()) {
        (true, _) => FINISHED,
        (false, true) => OPEN,
        (false, false) => CLOSED,
    };
    let decision = rules.iter().find_map(|rule| rule(input));
    let decision =
        decision.unwrap_or_else(|| Decision::note(status.phase, "Waiting", "waiting for a change"));
    let wake = sooner(decision.wake, timers(input));
    decision.wake(wake)
}

/// Times at which a rule may begin to apply without any event.
fn timers(input: &Input) -> Option<Duration> {
    if input.status.phase.is_final() || !input.is_open() {
        return None;
    }
    let timers = [
        deadline::left(input),
        node_lost::left(input),
        startup::left(input),
    ];
    timers.into_iter().flatten().min()
}

fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    [a, b].into_iter().flatten().min()
}

/// Time from now to a point in time; zero if it has passed.
pub fn until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// A point in time after another; saturates.
pub fn after(start: Timestamp, delay: Duration) -> Timestamp {
    start.saturating_add(delay).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
