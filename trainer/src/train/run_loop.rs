//! Steps until the plan is done or someone asks to leave.

use std::time::{Duration, Instant};

use super::reporter::StepFacts;
use super::session::Session;
use super::snapshot::Snapshot;
use super::step::{StepOutcome, optimizer_step};
use super::{State, evaluate};
use crate::batch::Batch;
use crate::checkpoint::Manifest;
use crate::error::{Error, Result};

/// How a completed run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub step: u64,
    /// Mean loss of the last logged steps.
    pub final_loss: Option<f64>,
    pub validation_loss: Option<f64>,
}

impl Session {
    /// Trains to the end. On SIGTERM it makes a checkpoint and returns Drained; on any error the
    /// last good checkpoint stays.
    pub fn train(&mut self) -> Result<Summary> {
        let ended = self.run();
        if ended.is_err() && self.comm().rank().world_size == 1 {
            // One that is being written is good. With peers there is nobody left to agree with;
            // the error to tell is the first one.
            let _ = self.publish_checkpoint();
        }
        ended
    }

    fn run(&mut self) -> Result<Summary> {
        self.reporter.phase("Training");
        while self.state.step < self.total_steps {
            if self.asked_to_leave()? {
                return Err(self.leave());
            }
            self.step()?;
            self.evaluate_if_due()?;
            if self.state.step.is_multiple_of(self.plan.checkpoint_every) {
                self.begin_checkpoint()?;
            }
        }
        self.reporter.console.finish();
        self.check_trained()?;
        self.evaluate()?;
        self.checkpoint()?;
        if self.asked_to_leave()? {
            return Err(self.leave());
        }
        Ok(Summary {
            step: self.state.step,
            final_loss: self.state.loss,
            validation_loss: self.state.validation_loss,
        })
    }

    /// A short run may end before it has skipped more steps than it may.
    fn check_trained(&self) -> Result<()> {
        let State {
            step,
            non_finite_steps,
            ..
        } = self.state;
        if step == 0 || non_finite_steps < step {
            return Ok(());
        }
        Err(Error::User(format!(
            "all {step} steps had a loss or gradients that are not finite: nothing was trained; \
             check the model's weights, lower training.learningRate, or use precision Float32"
        )))
    }

    /// Whether any rank was: all leave at the same step. Publishes a checkpoint that all ranks
    /// have written meanwhile.
    fn asked_to_leave(&mut self) -> Result<bool> {
        let own = [self.stop.requested(), self.checkpoints.is_writing()];
        let agreed = self.comm().any_of(&own)?;
        let leaves = agreed.first() == Some(&true);
        if agreed.get(1) == Some(&false) {
            self.publish_checkpoint()?;
        }
        Ok(leaves)
    }

    fn step(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.comm().at(self.state.step, "waiting for data");
        let batches = self.next_batches()?;
        let data_wait = begin.elapsed();
        let rates = self
            .plan
            .rates
            .scaled(self.schedule.factor(self.state.step));
        let mut outcome = optimizer_step(
            &mut self.model,
            &mut self.optimizer,
            &batches,
            self.state.step,
            &rates,
            &self.settings,
        )?;
        outcome.sample.duration = begin.elapsed();
        self.advance(&outcome, &batches)?;
        let facts = StepFacts {
            rates,
            epoch: self.epoch(),
            data_wait,
        };
        self.reporter.step(&outcome, &self.state, &facts);
        self.state.loss = self.reporter.window.mean_loss();
        Ok(())
    }

    /// The micro-batches of one step. All are fetched before the first is used: the loss is
    /// normalised by their tokens together.
    fn next_batches(&mut self) -> Result<Vec<Batch>> {
        let mut batches = Vec::new();
        for _ in 0..self.plan.batch.accumulation_steps {
            let batch = self.batches.next();
            batches.push(batch.ok_or_else(|| Error::Bug("the training data ended".into()))??);
        }
        Ok(batches)
    }

    fn advance(&mut self, outcome: &StepOutcome, batches: &[Batch]) -> Result<()> {
        let state = &mut self.state;
        state.step += 1;
        state.totals.add(&outcome.sample);
        if let Some(last) = batches.last() {
            state.cursor = last.cursor;
        }
        self.reporter.metrics.samples_dropped.reset();
        self.reporter
            .metrics
            .samples_dropped
            .inc_by(self.batches.dropped());
        if outcome.skipped {
            state.non_finite_steps += 1;
            tracing::warn!(
                step = state.step,
                loss_sum = outcome.sample.loss_sum,
                grad_norm = outcome.grad_norm,
                "loss or gradients are not finite; the step is skipped"
            );
            if state.non_finite_steps > self.plan.max_non_finite_steps {
                return Err(Error::User(format!(
                    "{} steps had a loss or gradients that are not finite, more than \
                     training.maxNonFiniteSteps allows; lower training.learningRate, lengthen the \
                     warm-up, or use precision Float32",
                    state.non_finite_steps
                )));
            }
        }
        Ok(())
    }

    /// Epochs done, as a fraction.
    fn epoch(&self) -> f64 {
        let cursor = self.state.cursor;
        cursor.epoch as f64 + cursor.sample as f64 / self.samples.max(1) as f64
    }

    fn evaluate_if_due(&mut self) -> Result<()> {
        let due = |every: u64| self.state.step.is_multiple_of(every);
        // The last evaluation comes after the loop in any case.
        let last = self.state.step == self.total_steps;
        if self.plan.evaluate_every.is_some_and(due) && !last {
            self.evaluate()?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<()> {
        let Some(batches) = self.validation_batches()? else {
            return Ok(());
        };
        self.reporter.phase("Evaluating");
        self.comm().at(self.state.step, "evaluation");
        let loss = evaluate::validation_loss(&self.model, batches, &self.stop, self.comm())?;
        self.reporter.phase("Training");
        self.reporter.evaluated(self.state.step, loss);
        self.state.validation_loss = loss.or(self.state.validation_loss);
        Ok(())
    }

    /// Makes a checkpoint of this step, unless the last one is of this step already, and returns
    /// when it is published.
    fn checkpoint(&mut self) -> Result<()> {
        self.begin_checkpoint()?;
        self.publish_checkpoint()
    }

    /// Copies what a checkpoint of this step needs; it is written while training goes on.
    fn begin_checkpoint(&mut self) -> Result<()> {
        if self.checkpoints.last_step() == Some(self.state.step) {
            return Ok(());
        }
        self.publish_checkpoint()?;
        self.reporter.phase("Checkpointing");
        self.comm().at(self.state.step, "checkpoint");
        let manifest = self.manifest()?;
        let (buffers, optimizer) = (self.model.parameters().buffers(), &self.optimizer);
        let take = || Snapshot::take(buffers, optimizer);
        self.checkpoints.begin(manifest, take)?;
        self.reporter.phase("Training");
        Ok(())
    }

    /// Waits until the checkpoint that was begun is written on all ranks, and publishes it.
    fn publish_checkpoint(&mut self) -> Result<()> {
        if let Some(made) = self.checkpoints.finish()? {
            self.reporter.checkpointed(&made);
        }
        Ok(())
    }

    fn manifest(&self) -> Result<Manifest> {
        let state = serde_json::to_value(self.state)
            .map_err(|cause| Error::Bug(format!("state: {cause}")))?;
        Ok(Manifest {
            step: self.state.step,
            cursor: self.state.cursor,
            state,
            plan: self.fingerprint.clone(),
            environment: self.environment.clone(),
            ..Manifest::default()
        })
    }

    /// Checkpoint, then Drained; or whatever kept the checkpoint from being made.
    fn leave(&mut self) -> Error {
        self.reporter.console.finish();
        let begin = Instant::now();
        if let Err(error) = self.checkpoint() {
            return error;
        }
        let took: Duration = begin.elapsed();
        Error::Drained(format!(
            "asked to leave at step {} of {}; its checkpoint took {:.1} s",
            self.state.step,
            self.total_steps,
            took.as_secs_f64()
        ))
    }
}
