//! From nothing to running pods.

use super::*;

#[test]
fn a_start_takes_two_passes() {
    let mut world = World::new();
    let claim = world.pass();
    assert_eq!((claim.action, claim.phase), (Action::Claim, Phase::Pending));
    assert_eq!((world.status().attempt, world.status().restarts), (1, 0));
    assert_eq!(world.attempt().job_name, "captions-1");
    assert_eq!(world.attempt().start_time, None);
    assert_eq!(world.condition("ReadyToStart").unwrap().0, "False");
    assert_eq!(world.pass().action, Action::Build);
    // A stale cache: the Job is not seen yet. Building again is harmless, claiming is not.
    assert_eq!(world.pass().action, Action::Build);
    assert_eq!(world.status().attempt, 1);
    world.sees_job(json!({}));
    assert_eq!(world.pass().phase, Phase::Starting);
    assert_eq!(
        world.condition("ReadyToStart").unwrap(),
        ("True".into(), "ChildrenCreated".into())
    );
    assert!(world.status().start_time.is_some());
}

#[test]
fn a_suspended_resource_never_starts() {
    let mut world = World::new();
    world.finetune.spec.run_policy.suspend = true;
    assert_eq!(world.pass().phase, Phase::Suspended);
    assert_eq!(world.status().attempt, 0);
}

#[test]
fn a_rejected_spec_starts_nothing_and_a_corrected_one_does() {
    let mut world = World::new();
    let good = world.finetune.spec.model.uri.clone();
    world.finetune.spec.model.uri = "hf://Qwen/Qwen2-VL-7B-Instruct".to_owned();
    let rejected = world.pass();
    assert_eq!(
        (rejected.phase, rejected.reason),
        (Phase::Rejected, "NotSupported")
    );
    assert_eq!(
        world.condition("Accepted").unwrap(),
        ("False".into(), "NotSupported".into())
    );
    world.finetune.spec.model.uri = good;
    world.finetune.metadata.generation = Some(2);
    assert_eq!(world.pass().action, Action::Claim);
    assert_eq!(
        world.condition("Accepted").unwrap(),
        ("True".into(), "Valid".into())
    );
}

#[test]
fn pods_say_what_they_wait_for() {
    let mut world = World::started();
    let scheduled = |status: &str| {
        json!([{ "type": "PodScheduled", "status": status, "reason": "Unschedulable",
            "message": "0/2 nodes have nvidia.com/gpu",
            "lastTransitionTime": "2026-01-01T00:00:02Z" }])
    };
    world.sees_pod(
        0,
        json!({ "phase": "Pending", "conditions": scheduled("False") }),
    );
    let unschedulable = world.pass();
    assert_eq!(
        (unschedulable.phase, unschedulable.reason),
        (Phase::Starting, "Unschedulable")
    );
    assert!(
        unschedulable.message.contains("0/2 nodes"),
        "{}",
        unschedulable.message
    );
    let failing = json!({ "phase": "Pending", "conditions": scheduled("True"),
        "containerStatuses": [{ "name": "trainer", "state": { "waiting": {
            "reason": "ImagePullBackOff", "message": "no such image" } } }] });
    world.sees_pod(0, failing);
    let failing = world.pass();
    assert_eq!(
        (failing.phase, failing.reason),
        (Phase::Starting, "StartupFailing")
    );
    assert_eq!(failing.wake, Some(Duration::from_secs(592)));
    world.later(592);
    let end = world.pass();
    assert_eq!((end.phase, end.reason), (Phase::Restarting, "Startup"));
    assert!(end.message.contains("no such image"), "{}", end.message);
}

#[test]
fn a_suspended_job_waits_in_its_queue() {
    let mut world = World::started();
    world.finetune.spec.scheduling.queue_name = Some("gpus".to_owned());
    let mut queued = job(1, json!({}));
    queued.spec.suspend = Some(true);
    world.observed.job = Some(Arc::new(queued));
    assert_eq!(world.pass().phase, Phase::Queued);
    assert_eq!(
        world.condition("Admitted").unwrap(),
        ("False".into(), "Queued".into())
    );
    world.sees_job(json!({}));
    world.pass();
    assert_eq!(world.condition("Admitted").unwrap().0, "True");
}

/// A pod's state as the kubelet tells it, step by step, and the phase each leads to.
#[test]
fn the_phase_never_falls_back_while_a_trainer_ends() {
    let ended = json!({ "terminated": { "exitCode": 0, "message": completed_report() } });
    let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
    let status = |phase: &str, state: &Value| {
        json!({ "phase": phase, "podIP": "10.0.0.1",
            "containerStatuses": [{ "name": "trainer", "state": state }] })
    };
    let mut world = World::started();
    for (pod, phase, reason) in [
        (
            status("Pending", &waiting),
            Phase::Starting,
            startup::STARTING,
        ),
        // Running with a container that does not run yet.
        (
            status("Running", &waiting),
            Phase::Starting,
            startup::STARTING,
        ),
        (running(), Phase::Running, startup::RUNNING),
        // The process has ended, and the kubelet still cleans up.
        (status("Running", &ended), Phase::Running, startup::ENDING),
        (status("Succeeded", &ended), Phase::Running, startup::ENDING),
    ] {
        world.sees_pod(0, pod.clone());
        let decision = world.pass();
        assert_eq!((decision.phase, decision.reason), (phase, reason), "{pod}");
    }
    world.sees_job(job_ended("Complete"));
    assert_eq!(world.pass().phase, Phase::Succeeded);
}

#[test]
fn a_pod_deleted_by_force_is_ending_and_not_starting() {
    let mut world = World::running();
    world.loses_pod();
    let decision = world.pass();
    assert_eq!(
        (decision.phase, decision.reason),
        (Phase::Running, startup::ENDING)
    );
}

/// A queue stops a Job and lets it go on: the pods of before say nothing about its start.
#[test]
fn a_job_that_goes_on_starts_anew() {
    let mut world = World::running();
    let mut stopped = job(1, json!({}));
    stopped.spec.suspend = Some(true);
    world.observed.job = Some(Arc::new(stopped));
    world.loses_pod();
    assert_eq!(world.pass().phase, Phase::Queued);
    world.sees_job(json!({}));
    let decision = world.pass();
    assert_eq!(
        (decision.phase, decision.reason),
        (Phase::Starting, startup::STARTING)
    );
}
