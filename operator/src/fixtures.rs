//! Objects that tests start from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde_json::{Value, json};
use vlft_crds::VLFineTune;
use vlft_crds::contract::TerminationReport;

use crate::controller::Defaults;
use crate::controller::testing::{AttemptJob, TrainerPod, ValidatedFineTune, validate};

/// The smallest VLFineTune, as the API server would hand it out.
pub fn minimal() -> VLFineTune {
    let mut finetune = vlft_crds::load::load_str(
        "apiVersion: vlft.dev/v1alpha1
kind: VLFineTune
metadata: { name: captions, namespace: team, uid: uid-1, generation: 1, resourceVersion: '7' }
spec:
  model: { uri: pvc://models/qwen2-vl }
  dataset:
    train: [{ uri: pvc://data/captions }]
",
    )
    .unwrap();
    finetune.metadata.creation_timestamp = Some(time("2026-01-01T00:00:00Z"));
    finetune
}

pub fn time(text: &str) -> Time {
    Time(text.parse().unwrap())
}

pub fn defaults() -> Defaults {
    Defaults {
        trainer_image: Some("trainer:test".to_owned()),
    }
}

/// [`minimal`], through the real checks.
pub fn validated() -> ValidatedFineTune {
    validate(&minimal(), &Default::default(), None, &defaults()).unwrap()
}

pub fn as_json<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap()
}

/// The owner reference of each child of [`minimal`].
pub fn owner_json() -> Value {
    json!({
        "apiVersion": "vlft.dev/v1alpha1",
        "kind": "VLFineTune",
        "name": "captions",
        "uid": "uid-1",
        "controller": true,
    })
}

/// Labels of children that outlive an attempt.
pub fn labels_json() -> Value {
    json!({
        "app.kubernetes.io/managed-by": "vlfinetune-operator",
        "vlft.dev/finetune": "captions",
        "vlft.dev/finetune-uid": "uid-1",
    })
}

fn child_labels(attempt: i64) -> Value {
    json!({
        "vlft.dev/finetune": "captions",
        "vlft.dev/finetune-uid": "uid-1",
        "vlft.dev/attempt": attempt.to_string(),
        "vlft.dev/role": "trainer",
    })
}

/// The Job of an attempt, with what its status is to hold.
pub fn job(attempt: i64, status: Value) -> AttemptJob {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("captions-{attempt}"),
            "namespace": "team",
            "uid": format!("job-{attempt}"),
            "labels": child_labels(attempt),
            "ownerReferences": [owner_json()],
            "creationTimestamp": "2026-01-01T00:00:01Z",
        },
        "status": status,
    }))
    .unwrap()
}

/// Status of a Job that has ended.
pub fn job_ended(kind: &str) -> Value {
    json!({ "conditions": [{ "type": kind, "status": "True", "message": "the Job's words",
        "lastTransitionTime": "2026-01-01T00:10:00Z" }] })
}

/// A pod of an attempt, with what its status is to hold.
pub fn pod(attempt: i64, index: i64, status: Value) -> TrainerPod {
    let mut labels = child_labels(attempt);
    labels["batch.kubernetes.io/job-completion-index"] = json!(index.to_string());
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("captions-{attempt}-{index}-x"),
            "namespace": "team",
            "labels": labels,
        },
        "spec": { "nodeName": format!("node-{index}") },
        "status": status,
    }))
    .unwrap()
}

/// Status of a pod whose trainer runs.
pub fn running() -> Value {
    json!({
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [
            { "type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z" },
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:02Z" },
        ],
        "containerStatuses": [{ "name": "trainer", "ready": true, "state": { "running": {} } }],
    })
}

/// Status of a pod whose trainer has ended.
pub fn exited(code: i32, message: &str) -> Value {
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{ "name": "trainer", "state": { "terminated": {
            "exitCode": code, "message": message, "finishedAt": "2026-01-01T00:09:59Z" } } }],
    })
}

/// Last words of a trainer.
pub fn report(value: Value) -> String {
    let report: TerminationReport = serde_json::from_value(value).unwrap();
    report.to_capped_json()
}
