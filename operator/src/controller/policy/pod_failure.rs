//! Why one pod failed: an ordered list of rules over its last state.

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vlft_crds::contract::{TerminationReport, class_of_exit_code, exit_code, truncate_end};
use vlft_crds::status::FailureClass;

use crate::controller::observe::TrainerPod;

/// Why a pod failed.
#[derive(Debug, Clone, PartialEq)]
pub struct PodFailure {
    pub class: FailureClass,
    pub message: String,
    pub exit_code: Option<i32>,
    /// Global rank, where the trainer told it.
    pub rank: Option<i64>,
    pub log_tail: Option<String>,
    pub ended: Option<Time>,
}

/// What the rules look at.
struct Evidence<'a> {
    pod: &'a TrainerPod,
    gone: bool,
    exit: Option<&'a ContainerStateTerminated>,
    report: Option<TerminationReport>,
}

type Rule = fn(&Evidence) -> Option<(FailureClass, String)>;

/// The trainer's own errors come first, then what the cluster did to the pod, then what a
/// trainer says about others.
const RULES: &[Rule] = &[
    out_of_memory_kill,
    own_error,
    evicted,
    disrupted,
    left,
    not_started,
    crashed,
    deleted,
];

/// The failure of a pod; `None` if it did not fail.
pub fn classify(pod: &TrainerPod, gone: bool) -> Option<PodFailure> {
    let evidence = Evidence {
        pod,
        gone,
        exit: pod.terminated(),
        report: pod.report(),
    };
    let (class, message) = RULES.iter().find_map(|rule| rule(&evidence))?;
    let Evidence { exit, report, .. } = evidence;
    Some(PodFailure {
        class,
        message,
        exit_code: exit.map(|exit| exit.exit_code),
        rank: report.as_ref().map(|report| report.rank),
        log_tail: log_tail(exit, report.as_ref()),
        ended: exit.and_then(|exit| exit.finished_at.clone()),
    })
}

fn out_of_memory_kill(evidence: &Evidence) -> Option<(FailureClass, String)> {
    let killed = evidence.exit?.reason.as_deref() == Some("OOMKilled");
    let message = "killed by the kernel: the pod exceeded its memory limit \
                   (workers.resources.limits.memory)";
    killed.then(|| (FailureClass::OutOfMemory, message.to_owned()))
}

fn own_error(evidence: &Evidence) -> Option<(FailureClass, String)> {
    let code = evidence.exit?.exit_code;
    let own = matches!(
        code,
        exit_code::USER_ERROR
            | exit_code::DATA_ERROR
            | exit_code::OUT_OF_MEMORY
            | exit_code::HANG
            | exit_code::STORAGE
    );
    own.then(|| (class_of_exit_code(code), words(evidence)))
}

fn evicted(evidence: &Evidence) -> Option<(FailureClass, String)> {
    let status = &evidence.pod.status;
    let class = match status.reason.as_deref()? {
        "Evicted" | "Terminated" | "NodeShutdown" | "Shutdown" => FailureClass::Evicted,
        "NodeLost" => FailureClass::NodeLost,
        "UnexpectedAdmissionError" | "OutOfcpu" | "OutOfmemory" | "OutOfpods" => {
            FailureClass::Startup
        }
        _ => return None,
    };
    let message = status
        .message
        .clone()
        .unwrap_or_else(|| "evicted by its node".to_owned());
    Some((class, message))
}

/// The pod condition with which Kubernetes says that it and not the container ended the pod.
fn disrupted(evidence: &Evidence) -> Option<(FailureClass, String)> {
    let condition = evidence.pod.condition("DisruptionTarget")?;
    if condition.status != "True" {
        return None;
    }
    let class = match condition.reason.as_deref() {
        Some("PreemptionByScheduler") => FailureClass::Preempted,
        Some("DeletionByPodGC" | "DeletionByTaintManager") => FailureClass::NodeLost,
        _ => FailureClass::Evicted,
    };
    let reason = condition.reason.as_deref().unwrap_or("DisruptionTarget");
    let message = condition.message.as_deref().unwrap_or_default();
    Some((
        class,
        format!("{reason}: {message}{}", drained_at(evidence)),
    ))
}

fn left(evidence: &Evidence) -> Option<(FailureClass, String)> {
    match evidence.exit?.exit_code {
        exit_code::DRAINED => {
            let message = format!("told to stop{}", drained_at(evidence));
            Some((FailureClass::Drained, message))
        }
        exit_code::PEER_LOST => Some((FailureClass::PeerLost, words(evidence))),
        _ => None,
    }
}

fn not_started(evidence: &Evidence) -> Option<(FailureClass, String)> {
    let exit = evidence.exit?;
    let reason = exit.reason.as_deref()?;
    let start = matches!(
        reason,
        "StartError" | "ContainerCannotRun" | "ContainerCreateError"
    );
    let message = exit
        .message
        .as_deref()
        .unwrap_or("the container could not be started");
    start.then(|| (FailureClass::Startup, format!("{reason}: {message}")))
}

fn crashed(evidence: &Evidence) -> Option<(FailureClass, String)> {
    match evidence.exit?.exit_code {
        exit_code::COMPLETED => None,
        code => Some((FailureClass::Bug, crash_words(evidence, code))),
    }
}

fn deleted(evidence: &Evidence) -> Option<(FailureClass, String)> {
    let unfinished = evidence.exit.is_none();
    let deleted = evidence.gone || evidence.pod.is_being_deleted();
    (unfinished && deleted).then(|| (FailureClass::Evicted, "the pod was deleted".to_owned()))
}

/// The trainer's message, or what its exit code says.
fn words(evidence: &Evidence) -> String {
    let report = evidence
        .report
        .as_ref()
        .filter(|report| !report.message.is_empty());
    match (report, evidence.exit) {
        (Some(report), _) => report.message.clone(),
        (None, Some(exit)) => format!("exit code {} without a report", exit.exit_code),
        (None, None) => "no report".to_owned(),
    }
}

fn crash_words(evidence: &Evidence, code: i32) -> String {
    match &evidence.report {
        Some(report) if !report.message.is_empty() => report.message.clone(),
        _ if code > 128 => format!("killed by signal {} (exit code {code})", code - 128),
        _ => format!("exit code {code} without a report"),
    }
}

/// What a drained trainer acknowledged.
fn drained_at(evidence: &Evidence) -> String {
    let exit = evidence.exit.map(|exit| exit.exit_code);
    let report = evidence
        .report
        .as_ref()
        .filter(|_| exit == Some(exit_code::DRAINED));
    match report.and_then(|report| report.progress.last_checkpoint.as_ref()) {
        Some(checkpoint) => format!("; checkpoint at step {}", checkpoint.step),
        None => String::new(),
    }
}

/// The trainer's own log tail, or the end of the log that the kubelet kept for it.
fn log_tail(
    exit: Option<&ContainerStateTerminated>,
    report: Option<&TerminationReport>,
) -> Option<String> {
    let mut tail = match report {
        Some(report) => report.log_tail.clone(),
        None => exit?.message.clone()?,
    };
    truncate_end(&mut tail, 4096);
    (!tail.is_empty()).then_some(tail)
}

#[cfg(test)]
#[path = "pod_failure_tests.rs"]
mod tests;
