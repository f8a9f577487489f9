use serde_json::{Value, json};

use super::*;
use crate::fixtures::{exited, pod, report, running};

fn class_of(status: Value) -> Option<(FailureClass, String)> {
    let failure = classify(&pod(1, 0, status), false)?;
    Some((failure.class, failure.message))
}

fn with(mut status: Value, extra: &[(&str, Value)]) -> Value {
    for (key, value) in extra {
        status[*key] = value.clone();
    }
    status
}

fn disrupted_by(reason: &str) -> Value {
    json!([{ "type": "DisruptionTarget", "status": "True", "reason": reason, "message": "words" }])
}

#[test]
fn each_exit_code_has_its_class_and_the_trainers_words() {
    for (code, class) in [
        (10, FailureClass::UserError),
        (11, FailureClass::DataError),
        (12, FailureClass::OutOfMemory),
        (13, FailureClass::Hang),
        (15, FailureClass::PeerLost),
        (16, FailureClass::Storage),
        (101, FailureClass::Bug),
    ] {
        let words = report(json!({ "class": class, "message": "metadata.jsonl:7: no JSON" }));
        let failure = class_of(exited(code, &words)).unwrap();
        assert_eq!(
            failure,
            (class, "metadata.jsonl:7: no JSON".to_owned()),
            "{code}"
        );
    }
}

#[test]
fn kills_are_told_apart_by_who_killed() {
    let (class, message) = class_of(exited(137, "")).unwrap();
    assert_eq!(class, FailureClass::Bug);
    assert!(message.contains("signal 9"), "{message}");
    let mut killed = exited(137, "");
    killed["containerStatuses"][0]["state"]["terminated"]["reason"] = json!("OOMKilled");
    let (class, message) = class_of(killed).unwrap();
    assert_eq!(class, FailureClass::OutOfMemory);
    assert!(
        message.contains("workers.resources.limits.memory"),
        "{message}"
    );
}

#[test]
fn what_the_cluster_did_outranks_the_farewell_but_not_an_own_error() {
    let drained = report(json!({ "class": "Drained",
        "progress": { "lastCheckpoint": { "step": 40, "path": "a", "digest": "d", "time": "" } } }));
    for (reason, class) in [
        ("PreemptionByScheduler", FailureClass::Preempted),
        ("EvictionByEvictionAPI", FailureClass::Evicted),
        ("TerminationByKubelet", FailureClass::Evicted),
        ("DeletionByTaintManager", FailureClass::NodeLost),
        ("DeletionByPodGC", FailureClass::NodeLost),
    ] {
        let status = with(
            exited(14, &drained),
            &[("conditions", disrupted_by(reason))],
        );
        let (found, message) = class_of(status).unwrap();
        assert_eq!(found, class, "{reason}");
        assert!(
            message.contains(reason) && message.contains("checkpoint at step 40"),
            "{message}"
        );
    }
    let status = exited(11, "");
    let status = with(
        status,
        &[("conditions", disrupted_by("EvictionByEvictionAPI"))],
    );
    assert_eq!(class_of(status).unwrap().0, FailureClass::DataError);
}

#[test]
fn a_kubelets_eviction_is_told_by_the_pod_itself() {
    let status = json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" });
    let evicted = (FailureClass::Evicted, "low on memory".to_owned());
    assert_eq!(class_of(status), Some(evicted));
}

#[test]
fn containers_that_never_started_are_startup() {
    let mut status = exited(128, "exec: trainer: not found");
    status["containerStatuses"][0]["state"]["terminated"]["reason"] = json!("StartError");
    let (class, message) = class_of(status).unwrap();
    assert_eq!(class, FailureClass::Startup);
    assert!(message.contains("not found"), "{message}");
}

#[test]
fn pods_that_did_not_fail_are_nobodys_fault() {
    assert_eq!(class_of(running()), None);
    assert_eq!(class_of(exited(0, "")), None);
    let deleted = classify(&pod(1, 0, running()), true).unwrap();
    assert_eq!(deleted.class, FailureClass::Evicted);
}

#[test]
fn without_a_report_the_end_of_the_log_is_kept() {
    let failure = classify(&pod(1, 0, exited(101, "thread 'main' panicked")), false).unwrap();
    assert_eq!(failure.log_tail.as_deref(), Some("thread 'main' panicked"));
    let words = report(json!({ "class": "Bug", "message": "m", "logTail": "tail", "rank": 3 }));
    let failure = classify(&pod(1, 0, exited(101, &words)), false).unwrap();
    assert_eq!(
        (failure.log_tail.as_deref(), failure.rank),
        (Some("tail"), Some(3))
    );
}
