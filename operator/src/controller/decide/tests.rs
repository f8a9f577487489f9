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

mod ends;
mod memory;
mod restarts;
mod starts;

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
        let gpu = self.observed.gpu;
        let valid = validate(&self.finetune, &ClaimModes::new(), gpu, &defaults());
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

    /// The pod is gone, in the state it was seen in last.
    fn loses_pod(&mut self) {
        let pod = self.observed.pods.pop().unwrap();
        self.observed.pods.push(Child { gone: true, ..pod });
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
