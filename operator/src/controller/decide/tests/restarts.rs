//! From one attempt to the next, and what stays bounded on the way.

use super::*;

#[test]
fn failures_are_retried_within_the_limit() {
    let mut world = World::running();
    assert_eq!(world.fails(137).phase, Phase::Restarting);
    let verdict = world.attempt().verdict.clone().unwrap();
    assert_eq!(
        (verdict.class, verdict.exit_code),
        (FailureClass::Bug, Some(137))
    );
    assert_eq!(verdict.pod_name.as_deref(), Some("captions-1-0-x"));
    assert_eq!(
        (world.status().failures, world.attempt().last_step),
        (1, Some(5))
    );
    // It went further than any before it: the next attempt follows at once.
    assert_eq!(world.pass().action, Action::Claim);
    assert_eq!((world.status().attempt, world.status().restarts), (2, 1));
    world.sees_job(json!({}));
    world.pass();
    let end = world.fails(101);
    assert_eq!(
        (end.phase, end.reason),
        (Phase::Failed, retry::BACKOFF_LIMIT_EXCEEDED)
    );
    assert!(end.message.contains("exit code 101"), "{}", end.message);
    assert_eq!(world.condition("Failed").unwrap().0, "True");
    assert_eq!(world.pass().action, Action::Note);
}

#[test]
fn disruptions_are_free_only_if_the_run_advances() {
    let mut world = World::running();
    world.fails(14);
    assert_eq!((world.status().failures, world.status().restarts), (0, 0));
    assert_eq!(world.pass().action, Action::Claim);
    assert_eq!(world.status().restarts, 1);
    world.sees_job(json!({}));
    // No further than step 5, which the first attempt had reached.
    world.tells_step(5);
    world.pass();
    world.fails(14);
    assert_eq!(world.status().failures, 1);
}

#[test]
fn fruitless_restarts_back_off() {
    let mut world = World::started();
    world.finetune.spec.run_policy.backoff_limit = 9;
    world.fails(101);
    assert_eq!(world.pass().action, Action::Claim);
    world.sees_job(json!({}));
    world.pass();
    world.fails(101);
    let pause = world.pass();
    assert_eq!(
        (pause.reason, pause.wake),
        (retry::BACK_OFF, Some(Duration::from_secs(10)))
    );
    world.later(10);
    assert_eq!(world.pass().action, Action::Claim);
}

#[test]
fn suspension_ends_the_attempt_and_resuming_is_a_new_uncounted_one() {
    let mut world = World::running();
    world.finetune.spec.run_policy.suspend = true;
    world.finetune.metadata.generation = Some(2);
    let end = world.pass();
    assert_eq!(end.phase, Phase::Suspending);
    let clear = world.pass();
    assert_eq!(
        clear.action,
        Action::Clear {
            delete_job: true,
            cut_short: vec![]
        }
    );
    assert_eq!(clear.phase, Phase::Suspending);
    // What the trainer reports on its way out still counts.
    let words = report(
        json!({ "class": "Drained", "progress": { "attempt": 1, "step": 7,
        "totalSteps": 10, "lastCheckpoint": { "step": 7, "path": "p/7", "digest": "d7", "time": "" } } }),
    );
    world.observed.job = None;
    world.sees_pod(0, exited(14, &words));
    world.pass();
    assert_eq!(world.status().phase, Phase::Suspended);
    assert_eq!(world.status().last_checkpoint.as_ref().unwrap().step, 7);
    assert_eq!(world.condition("Suspended").unwrap().0, "True");
    world.finetune.spec.run_policy.suspend = false;
    assert_eq!(world.pass().action, Action::Claim);
    let status = world.status();
    assert_eq!(
        (status.attempt, status.restarts, status.failures),
        (2, 0, 0)
    );
    world.observed = Observed::default();
    world.pass();
    assert_eq!(
        world.condition("Suspended").unwrap(),
        ("False".into(), "Resumed".into())
    );
}

#[test]
fn an_edit_never_reaches_a_running_attempt() {
    let mut world = World::running();
    world.finetune.spec.model.uri = "hf://org/other".to_owned();
    assert_eq!(world.pass().phase, Phase::Running);
    assert_eq!(world.condition("Accepted").unwrap().0, "False");
    world.fails(101);
    assert_eq!(world.pass().phase, Phase::Rejected);
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut world = World::running();
    let since = |world: &World| {
        let conditions = world.status().conditions.iter();
        conditions
            .map(|c| (c.type_.clone(), c.last_transition_time.clone()))
            .collect::<Vec<_>>()
    };
    let before = since(&world);
    world.later(60);
    world.tells_step(6);
    world.pass();
    assert_eq!(since(&world), before);
}

#[test]
fn status_stays_bounded() {
    let mut world = World::started();
    world.finetune.spec.run_policy.backoff_limit = 100;
    for _ in 0..30 {
        let words = report(json!({ "class": "Storage", "message": "é".repeat(4000),
            "logTail": "ü".repeat(4000) }));
        world.sees_job(job_ended("Failed"));
        world.sees_pod(0, exited(16, &words));
        world.pass();
        world.observed = Observed::default();
        world.later(600);
        assert_eq!(world.pass().action, Action::Claim);
        world.sees_job(json!({}));
        world.pass();
    }
    let status = world.status();
    assert_eq!(
        (status.attempt, status.attempts.len(), status.restarts),
        (31, 20, 30)
    );
    let size = serde_json::to_string(status).unwrap().len();
    assert!(size <= 64 * 1024, "{size} bytes");
}
