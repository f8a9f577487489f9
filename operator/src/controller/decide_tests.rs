//! A VLFineTune's life, pass by pass, without a cluster: what is decided is folded into
//! status, and the next pass starts from there.

use std::sync::Arc;

use serde_json::{Value, json};
use vlft_crds::contract::Progress;
use vlft_crds::status::FailureClass;

use super::*;
use crate::controller::observe::{Child, TrainerPod};
use crate::controller::status::{initial, next_status};
use crate::controller::validate::{ClaimModes, validate};
use crate::fixtures::{defaults, exited, job, job_ended, minimal, pod, report, running, time};

struct World {
    finetune: VLFineTune,
    observed: Observed,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let mut finetune = minimal();
        finetune.spec.run_policy.backoff_limit = 1;
        let now = "2026-01-01T00:00:10Z".parse().unwrap();
        Self {
            finetune,
            observed: Observed::default(),
            now,
        }
    }

    /// A world whose first attempt is claimed and built.
    fn started() -> Self {
        let mut world = Self::new();
        assert_eq!(world.pass().action, Action::Claim);
        assert_eq!(world.pass().action, Action::Build);
        world.sees_job(json!({}));
        world
    }

    /// A world whose first attempt runs and has told step 5.
    fn running() -> Self {
        let mut world = Self::started();
        world.sees_pod(0, running());
        world.tells_step(5);
        assert_eq!(world.pass().phase, Phase::Running);
        world
    }

    fn pass(&mut self) -> Decision {
        let valid = validate(&self.finetune, &ClaimModes::new(), &defaults());
        let first = initial();
        let settings = Settings {
            restart_backoff: Duration::from_secs(10),
            startup_timeout: Duration::from_secs(600),
        };
        let input = Input {
            finetune: &self.finetune,
            status: self.finetune.status.as_ref().unwrap_or(&first),
            valid: valid.as_ref(),
            observed: &self.observed,
            settings: &settings,
            now: self.now,
        };
        let decision = decide(&input);
        let status = next_status(&input, &decision, None);
        self.finetune.status = Some(status);
        decision
    }

    fn status(&self) -> &VLFineTuneStatus {
        self.finetune.status.as_ref().unwrap()
    }

    fn attempt(&self) -> &Attempt {
        self.status().attempts.last().unwrap()
    }

    fn condition(&self, kind: &str) -> Option<(String, String)> {
        let conditions = &self.status().conditions;
        let condition = conditions
            .iter()
            .find(|condition| condition.type_ == kind)?;
        assert_eq!(
            condition.observed_generation,
            self.finetune.metadata.generation
        );
        Some((condition.status.clone(), condition.reason.clone()))
    }

    fn sees_job(&mut self, status: Value) {
        self.observed.job = Some(Arc::new(job(self.status().attempt, status)));
    }

    fn sees_pod(&mut self, index: i64, status: Value) {
        let pod = pod(self.status().attempt, index, status);
        self.observed
            .pods
            .retain(|child| child.object.index() != index);
        self.observed.pods.push(Child {
            object: Arc::new(pod),
            gone: false,
        });
    }

    fn changes_pod(&mut self, change: impl FnOnce(&mut TrainerPod)) {
        let child = self.observed.pods.pop().unwrap();
        let mut pod = TrainerPod::clone(&child.object);
        change(&mut pod);
        self.observed.pods.push(Child {
            object: Arc::new(pod),
            gone: false,
        });
    }

    fn tells_step(&mut self, step: i64) {
        let attempt = self.status().attempt;
        self.observed.progress = Some(Progress {
            attempt,
            step,
            total_steps: 10,
            ..Progress::default()
        });
    }

    fn later(&mut self, seconds: u64) {
        self.now = after(self.now, Duration::from_secs(seconds));
    }

    /// The current attempt fails with an exit code, and all of it is gone.
    fn fails(&mut self, code: i32) -> Decision {
        self.sees_job(job_ended("Failed"));
        self.sees_pod(0, exited(code, ""));
        let decision = self.pass();
        self.observed = Observed::default();
        decision
    }
}

fn completed_report() -> String {
    report(json!({
        "class": "Completed",
        "progress": {
            "attempt": 1, "step": 10, "totalSteps": 10,
            "lastCheckpoint": { "step": 10, "path": "team/captions/uid-1/checkpoints/10",
                "digest": "abc", "time": "2026-01-01T00:09:00Z" },
        },
        "finalLoss": 0.25,
        "modelPath": "team/captions/uid-1/model",
        "metrics": { "accuracy": 0.97 },
    }))
}

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
fn errors_of_user_and_data_are_never_retried() {
    for (code, reason) in [(10, "UserError"), (11, "DataError")] {
        let mut world = World::running();
        let end = world.fails(code);
        assert_eq!((end.phase, end.reason), (Phase::Failed, reason));
    }
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
            force_pods: vec![]
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
fn a_suspended_resource_never_starts() {
    let mut world = World::new();
    world.finetune.spec.run_policy.suspend = true;
    assert_eq!(world.pass().phase, Phase::Suspended);
    assert_eq!(world.status().attempt, 0);
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
            force_pods: vec![]
        }
    );
    assert_eq!(
        (clear.phase, world.status().phase),
        (Phase::Failed, Phase::Failed)
    );
    assert_eq!(world.status().reason.as_deref(), Some("DeadlineExceeded"));
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
fn an_edit_never_reaches_a_running_attempt() {
    let mut world = World::running();
    world.finetune.spec.model.uri = "hf://org/other".to_owned();
    assert_eq!(world.pass().phase, Phase::Running);
    assert_eq!(world.condition("Accepted").unwrap().0, "False");
    world.fails(101);
    assert_eq!(world.pass().phase, Phase::Rejected);
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
    let force_pods = vec!["captions-1-0-x".to_owned()];
    assert_eq!(
        clear.action,
        Action::Clear {
            delete_job: true,
            force_pods
        }
    );
    assert_eq!(world.status().failures, 0);
}

#[test]
fn a_deleted_job_is_an_eviction_once_its_pods_are_gone() {
    let mut world = World::running();
    world.observed.job = None;
    world.observed.job_vanished = true;
    assert_eq!(world.pass().reason, "JobDeleted");
    let pods = std::mem::take(&mut world.observed.pods);
    world.observed.pods = pods
        .into_iter()
        .map(|child| Child {
            gone: true,
            ..child
        })
        .collect();
    let end = world.pass();
    assert_eq!((end.phase, end.reason), (Phase::Restarting, "Evicted"));
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
