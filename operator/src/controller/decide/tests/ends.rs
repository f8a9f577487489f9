//! How attempts and runs end.

use super::*;

#[test]
fn success_needs_the_job_and_the_report() {
    let mut world = World::running();
    assert_eq!(world.status().progress.as_ref().unwrap().percent, "50%");
    // The pod ends before its Job does.
    world.sees_pod(0, exited(0, &completed_report()));
    let ending = world.pass();
    assert_eq!(
        (ending.phase, ending.reason),
        (Phase::Running, startup::ENDING)
    );
    // The Job's watch may be ahead of the pods'.
    world.sees_pod(0, running());
    world.sees_job(job_ended("Complete"));
    world.now = "2026-01-01T00:10:01Z".parse().unwrap();
    let waiting = world.pass();
    assert_eq!(
        (waiting.reason, waiting.wake),
        ("Completing", Some(Duration::from_secs(1)))
    );
    world.sees_pod(0, exited(0, &completed_report()));
    assert_eq!(world.pass().phase, Phase::Succeeded);
    let status = world.status();
    let result = status.result.as_ref().unwrap();
    assert_eq!(
        result.model_uri,
        "pvc://captions-checkpoints/team/captions/uid-1/model"
    );
    assert_eq!(result.final_loss.as_deref(), Some("0.250000"));
    assert_eq!(result.metrics["accuracy"], "0.970000");
    let checkpoint = status.last_checkpoint.as_ref().unwrap();
    assert_eq!((checkpoint.step, checkpoint.digest.as_str()), (10, "abc"));
    assert_eq!(status.progress.as_ref().unwrap().percent, "100%");
    assert_eq!(
        world.condition("Complete").unwrap(),
        ("True".into(), "Completed".into())
    );
    assert_eq!(world.condition("Running").unwrap().0, "False");
    assert!(status.completion_time.is_some());
    // A finished run is never started again, whatever becomes of its children or its spec.
    world.observed = Observed::default();
    world.finetune.spec.run_policy.suspend = true;
    assert_eq!(world.pass().action, Action::Note);
    assert_eq!(world.status().phase, Phase::Succeeded);
}

#[test]
fn a_complete_job_without_report_is_not_believed() {
    let mut world = World::running();
    world.sees_job(job_ended("Complete"));
    world.sees_pod(0, exited(0, ""));
    let decision = world.pass();
    assert_eq!(
        (decision.phase, decision.reason),
        (Phase::Restarting, "Bug")
    );
}

#[test]
fn errors_of_user_and_data_are_never_retried() {
    for (code, reason) in [(10, "UserError"), (11, "DataError")] {
        let mut world = World::running();
        let end = world.fails(code);
        assert_eq!((end.phase, end.reason), (Phase::Failed, reason));
    }
}

#[test]
fn a_root_cause_outranks_peers_that_only_lost_it() {
    let mut world = World::running();
    world.finetune.spec.workers.replicas = 3;
    world.sees_job(job_ended("Failed"));
    world.sees_pod(0, exited(15, ""));
    world.sees_pod(1, exited(14, ""));
    let mut late = exited(
        12,
        &report(json!({ "class": "OutOfMemory", "message": "GPU full", "rank": 2 })),
    );
    late["containerStatuses"][0]["state"]["terminated"]["finishedAt"] =
        json!("2026-01-01T00:59:00Z");
    world.sees_pod(2, late);
    world.pass();
    let verdict = world.attempt().verdict.clone().unwrap();
    assert_eq!(
        (verdict.class, verdict.rank),
        (FailureClass::OutOfMemory, Some(2))
    );
    assert_eq!(verdict.node_name.as_deref(), Some("node-2"));
    assert_eq!(verdict.message, "GPU full");
}

#[test]
fn the_deadline_ends_the_run_and_its_job_is_cleared() {
    let mut world = World::running();
    world.finetune.spec.run_policy.active_deadline_seconds = Some(60);
    let before = world.pass();
    assert_eq!(before.wake, Some(Duration::from_secs(51)));
    world.later(60);
    let end = world.pass();
    assert_eq!((end.phase, end.reason), (Phase::Failed, "DeadlineExceeded"));
    let clear = world.pass();
    assert_eq!(
        clear.action,
        Action::Clear {
            delete_job: true,
            cut_short: vec![]
        }
    );
    assert_eq!(
        (clear.phase, world.status().phase),
        (Phase::Failed, Phase::Failed)
    );
    assert_eq!(world.status().reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_lost_node_ends_the_attempt_and_its_pods_go_by_force() {
    let mut world = World::running();
    world.changes_pod(|pod| {
        let since = Some(time("2026-01-01T00:00:05Z"));
        let mut conditions = pod.status.conditions.iter_mut();
        let condition = conditions
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        condition.status = "False".to_owned();
        condition.last_transition_time = since;
    });
    assert_eq!(world.pass().wake, Some(Duration::from_secs(295)));
    world.observed.lost_nodes = ["node-0".to_owned()].into();
    assert_eq!(world.pass().reason, "NodeLost");
    let clear = world.pass();
    let cut_short = vec![CutShort {
        pod: "captions-1-0-x".to_owned(),
        grace_seconds: 0,
    }];
    assert_eq!(
        clear.action,
        Action::Clear {
            delete_job: true,
            cut_short
        }
    );
    assert_eq!(world.status().failures, 0);
}

#[test]
fn peers_of_a_lost_node_do_not_wait_out_their_grace_period() {
    let mut world = World::running();
    world.sees_pod(1, running());
    world.changes_pod(|pod| pod.spec.node_name = Some("node-1".to_owned()));
    world.observed.lost_nodes = ["node-0".to_owned()].into();
    assert_eq!(world.pass().reason, "NodeLost");
    let cut_short = |world: &mut World| match world.pass().action {
        Action::Clear { cut_short, .. } => {
            let pods = cut_short.into_iter();
            pods.map(|cut| (cut.pod, cut.grace_seconds)).collect()
        }
        other => panic!("{other:?}"),
    };
    let both = [("captions-1-0-x", 0), ("captions-1-1-x", 5)];
    let both = both.map(|(pod, seconds)| (pod.to_owned(), seconds));
    let first: Vec<_> = cut_short(&mut world);
    assert_eq!(first, both);
    // Told once, it is not told again.
    world.changes_pod(|pod| pod.metadata.deletion_grace_period_seconds = Some(5));
    assert_eq!(cut_short(&mut world), both[..1]);
}

#[test]
fn a_deleted_job_is_an_eviction_once_its_pods_are_gone() {
    let mut world = World::running();
    world.observed.job = None;
    world.observed.job_vanished = true;
    assert_eq!(world.pass().reason, "JobDeleted");
    world.loses_pod();
    let end = world.pass();
    assert_eq!((end.phase, end.reason), (Phase::Restarting, "Evicted"));
}

#[test]
fn finished_runs_expire_with_their_children() {
    let mut world = World::running();
    world.finetune.spec.run_policy.ttl_seconds_after_finished = Some(30);
    world.fails(10);
    world.sees_job(job_ended("Failed"));
    assert_eq!(world.pass().wake, Some(Duration::from_secs(30)));
    world.later(30);
    assert_eq!(world.pass().action, Action::Expire);
    world.observed.job = None;
    assert_eq!(world.pass().action, Action::Note);
    world.finetune.spec.run_policy.delete_after_finished = true;
    assert_eq!(world.pass().action, Action::DeleteResource);
}
