//! What operator and trainer promise each other: environment, paths, ports, exit codes, and
//! the two documents the trainer publishes.

use serde::{Deserialize, Serialize};

use crate::status::{FailureClass, ResumedFrom};

/// Environment that the operator sets in every trainer container.
pub mod env {
    /// `metadata.name` of the VLFineTune.
    pub const NAME: &str = "VLFT_NAME";
    /// `metadata.namespace` of the VLFineTune.
    pub const NAMESPACE: &str = "VLFT_NAMESPACE";
    /// `metadata.uid` of the VLFineTune.
    pub const UID: &str = "VLFT_UID";
    /// Number of the attempt, from 1: the fence on the volume.
    pub const ATTEMPT: &str = "VLFT_ATTEMPT";
    /// Pods of the attempt.
    pub const NUM_NODES: &str = "VLFT_NUM_NODES";
    /// Trainer processes in each pod.
    pub const PROCESSES_PER_NODE: &str = "VLFT_PROCESSES_PER_NODE";
    /// Host name of the pod with index 0.
    pub const MASTER_ADDR: &str = "VLFT_MASTER_ADDR";
    pub const MASTER_PORT: &str = "VLFT_MASTER_PORT";
    /// Index of this pod; set by the Job controller of Kubernetes.
    pub const NODE_RANK: &str = "JOB_COMPLETION_INDEX";
    /// Number of a process in its pod, from 0; `trainer launch` sets it for its own processes.
    pub const LOCAL_RANK: &str = "VLFT_LOCAL_RANK";
    /// Folder below which each claim is mounted under its name.
    pub const VOLUMES: &str = "VLFT_VOLUMES";
    /// Folder of the checkpoint volume; the run lives in `<namespace>/<name>/<uid>/` below.
    pub const CHECKPOINTS: &str = "VLFT_CHECKPOINTS";
    /// Claim name of the checkpoint volume, for `pvc://` paths in reports.
    pub const CHECKPOINT_CLAIM: &str = "VLFT_CHECKPOINT_CLAIM";
    /// Threads of each trainer process.
    pub const NUM_THREADS: &str = "OMP_NUM_THREADS";
    /// Where the termination report is written.
    pub const TERMINATION_LOG: &str = "VLFT_TERMINATION_LOG";
}

/// The resolved VLFineTune in the container (from the attempt's ConfigMap).
pub const DOCUMENT_PATH: &str = "/etc/vlft/finetune.yaml";
/// Key of the document in the ConfigMap.
pub const DOCUMENT_KEY: &str = "finetune.yaml";
/// Claims named by `pvc://` are mounted at `<VOLUMES_PATH>/<claim>`.
pub const VOLUMES_PATH: &str = "/vlft/volumes";
/// The checkpoint volume.
pub const CHECKPOINTS_PATH: &str = "/vlft/checkpoints";
/// Where Kubernetes reads the termination report from.
pub const TERMINATION_LOG_PATH: &str = "/dev/termination-log";
/// Longest termination report, bytes; the kubelet keeps only the last 4,096.
pub const TERMINATION_REPORT_MAX_BYTES: usize = 4096;
/// Longest answer of `GET /progress`, bytes.
pub const PROGRESS_MAX_BYTES: usize = 4096;
/// Name of the trainer container.
pub const TRAINER_CONTAINER: &str = "trainer";
/// `/metrics`, `/progress` and `/healthz` of a pod; rank r of a pod adds its local rank.
pub const METRICS_PORT: u16 = 9400;
pub const METRICS_PORT_NAME: &str = "metrics";
/// Rendezvous (TCPStore) on the pod with index 0.
pub const RENDEZVOUS_PORT: u16 = 29500;
/// Subfolder of a run that holds the checkpoints.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";
/// Subfolder of a run that holds the exported model (full weights, adapters merged).
pub const MODEL_FOLDER: &str = "model";
/// Subfolder of a run that holds the exported adapter alone.
pub const ADAPTER_FOLDER: &str = "adapter";
/// Trainer user and group where nothing else is asked for.
pub const TRAINER_UID: i64 = 65532;

/// Labels on every child.
pub mod label {
    pub const FINETUNE: &str = "vlft.dev/finetune";
    /// UID of the VLFineTune: tells its children from those of an earlier one of the same name.
    pub const FINETUNE_UID: &str = "vlft.dev/finetune-uid";
    pub const ATTEMPT: &str = "vlft.dev/attempt";
    pub const ROLE: &str = "vlft.dev/role";
    /// Value of [`ROLE`] on trainer pods.
    pub const ROLE_TRAINER: &str = "trainer";
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    pub const MANAGED_BY_VALUE: &str = "vlfinetune-operator";
}

/// Exit codes of the trainer.
pub mod exit_code {
    pub const COMPLETED: i32 = 0;
    pub const USER_ERROR: i32 = 10;
    pub const DATA_ERROR: i32 = 11;
    pub const OUT_OF_MEMORY: i32 = 12;
    pub const HANG: i32 = 13;
    pub const DRAINED: i32 = 14;
    pub const PEER_LOST: i32 = 15;
    pub const STORAGE: i32 = 16;
}

/// Class of a trainer's exit code. Anything unknown (a panic's 101, a signal's 128 + n) is a
/// bug, but for 137, which the caller must first hold against the pod's own status.
pub fn class_of_exit_code(code: i32) -> FailureClass {
    match code {
        exit_code::COMPLETED => FailureClass::Completed,
        exit_code::USER_ERROR => FailureClass::UserError,
        exit_code::DATA_ERROR => FailureClass::DataError,
        exit_code::OUT_OF_MEMORY => FailureClass::OutOfMemory,
        exit_code::HANG => FailureClass::Hang,
        exit_code::DRAINED => FailureClass::Drained,
        exit_code::PEER_LOST => FailureClass::PeerLost,
        exit_code::STORAGE => FailureClass::Storage,
        _ => FailureClass::Bug,
    }
}

/// What rank 0 answers to `GET /progress`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    pub attempt: i64,
    /// What it is doing: `Starting`, `Training`, `Evaluating`, `Checkpointing`, `Exporting`.
    pub phase: String,
    pub step: i64,
    pub total_steps: i64,
    pub epoch: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<ResumedFrom>,
    /// Absent when the run began anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_resume: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<CheckpointReport>,
}

/// A complete checkpoint on the volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckpointReport {
    pub step: i64,
    /// Relative to the checkpoint volume.
    pub path: String,
    /// sha256 of the manifest.
    pub digest: String,
    /// RFC 3339, UTC.
    pub time: String,
}

/// The last words of a trainer: JSON of at most [`TERMINATION_REPORT_MAX_BYTES`] in
/// [`TERMINATION_LOG_PATH`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminationReport {
    pub class: FailureClass,
    pub message: String,
    pub exit_code: i32,
    pub rank: i64,
    pub attempt: i64,
    pub progress: Progress,
    /// Mean loss of the last logged steps, of a completed run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Exported model, relative to the checkpoint volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
    /// Generation-based metrics by name.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub metrics: std::collections::BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

impl Default for TerminationReport {
    fn default() -> Self {
        Self {
            class: FailureClass::Bug,
            message: String::new(),
            exit_code: 1,
            rank: 0,
            attempt: 0,
            progress: Progress::default(),
            final_loss: None,
            validation_loss: None,
            model_path: None,
            metrics: std::collections::BTreeMap::new(),
            log_tail: String::new(),
        }
    }
}

impl TerminationReport {
    /// JSON of at most [`TERMINATION_REPORT_MAX_BYTES`]: the log tail gives way first, from
    /// its front, then the message, from its end; both at character boundaries.
    pub fn to_capped_json(&self) -> String {
        let mut report = self.clone();
        truncate_end(&mut report.message, 1024);
        loop {
            let json = serde_json::to_string(&report).unwrap_or_default();
            let excess = json.len().saturating_sub(TERMINATION_REPORT_MAX_BYTES);
            if excess == 0 {
                return json;
            }
            // One byte takes up to six in JSON (`\u0001`): cutting a sixth never cuts too much.
            let cut = excess.div_ceil(6);
            if !report.log_tail.is_empty() {
                truncate_front(&mut report.log_tail, cut);
            } else if !report.message.is_empty() {
                let keep = report.message.len().saturating_sub(cut);
                truncate_end(&mut report.message, keep);
            } else {
                report.metrics.clear();
                report.model_path = None;
                report.progress = Progress::default();
            }
        }
    }
}

/// Cuts `text` to at most `max` bytes at a character boundary.
pub fn truncate_end(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&i| text.is_char_boundary(i));
        text.truncate(end.unwrap_or(0));
    }
}

/// Drops at least `bytes` from the front of `text`, up to a character boundary.
fn truncate_front(text: &mut String, bytes: usize) {
    let start = (bytes..=text.len()).find(|&i| text.is_char_boundary(i));
    text.drain(..start.unwrap_or(text.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_fits_and_keeps_the_end_of_the_log() {
        let report = TerminationReport {
            message: "é".repeat(3000),
            log_tail: format!("{}the end", "\"\u{1}ü".repeat(4000)),
            ..TerminationReport::default()
        };
        let json = report.to_capped_json();
        assert!(json.len() <= TERMINATION_REPORT_MAX_BYTES, "{}", json.len());
        let back: TerminationReport = serde_json::from_str(&json).unwrap();
        assert!(back.log_tail.ends_with("the end"), "{}", back.log_tail);
        assert_eq!(back.message.chars().count(), 512);
    }

    #[test]
    fn escapes_in_the_message_alone_still_fit() {
        let report = TerminationReport {
            message: "\u{1}".repeat(1024),
            ..TerminationReport::default()
        };
        assert!(report.to_capped_json().len() <= TERMINATION_REPORT_MAX_BYTES);
    }

    #[test]
    fn unknown_exit_codes_are_bugs() {
        assert_eq!(class_of_exit_code(101), FailureClass::Bug);
        assert_eq!(class_of_exit_code(14), FailureClass::Drained);
    }
}
