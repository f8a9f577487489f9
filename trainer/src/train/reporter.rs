//! Tells metrics, progress and console what happens; decides nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vlft_crds::contract::{CheckpointReport, Progress};
use vlft_crds::status::ResumedFrom;

use super::checkpointer::Made;
use super::step::StepOutcome;
use super::{Console, State};
use crate::checkpoint::Checkpoint;
use crate::metrics::{GpuMonitor, Published, TrainerMetrics, Window, process_memory};
use crate::optim::LearningRates;

/// Who this run is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: i64,
}

/// The run's voice.
#[derive(Debug)]
pub struct Reporter {
    pub metrics: TrainerMetrics,
    pub published: Published,
    pub console: Console,
    pub gpu: Option<GpuMonitor>,
    /// Paths of checkpoints are told relative to this folder.
    pub volume: PathBuf,
    pub window: Window,
    pub log_every_steps: u64,
    /// Whether this rank counts what all ranks did; else it tells of its own memory and times.
    pub counts: bool,
}

impl Reporter {
    pub fn phase(&self, phase: &str) {
        self.published
            .update(|progress| phase.clone_into(&mut progress.phase));
    }

    /// The plan of the run, once the data is counted.
    pub(super) fn begin(&self, attempt: i64, total_steps: u64, state: &State) {
        self.metrics.total_steps.set(total_steps as f64);
        self.metrics.step.set(state.step as f64);
        self.published.update(|progress| {
            progress.attempt = attempt;
            progress.total_steps = total_steps as i64;
            progress.step = state.step as i64;
        });
    }

    /// Continuing from a checkpoint; `differences` say why not bit for bit.
    pub(super) fn resumed(&self, checkpoint: &Checkpoint, differences: &[String]) {
        let step = checkpoint.manifest.step as i64;
        let exact = differences.is_empty();
        self.published.update(|progress| {
            progress.resumed_from = Some(ResumedFrom {
                step,
                digest: checkpoint.digest.clone(),
            });
            progress.exact_resume = Some(exact);
            progress.last_checkpoint = Some(self.checkpoint_report(checkpoint));
        });
        self.metrics.checkpoint_step.set(step as f64);
        self.console.message(&format!(
            "resumed from step {step}, {}",
            checkpoint.folder.display()
        ));
        if !exact {
            tracing::warn!(
                "the run continues, but not bit for bit as it would have: {}",
                differences.join("; ")
            );
        }
    }

    pub(super) fn step(&mut self, outcome: &StepOutcome, state: &State, facts: &StepFacts) {
        let sample = &outcome.sample;
        self.window.push(*sample);
        let metrics = &self.metrics;
        if self.counts {
            metrics.tokens.inc_by(sample.tokens);
            metrics.supervised_tokens.inc_by(sample.supervised_tokens);
            metrics.samples.inc_by(sample.samples);
            metrics.images.inc_by(sample.images);
            metrics.set_throughput(&self.window.throughput());
        }
        metrics.step.set(state.step as f64);
        metrics.epoch.set(facts.epoch);
        metrics.learning_rate.set(facts.rates.language);
        metrics.gradient_norm.set(outcome.grad_norm);
        metrics.step_seconds.observe(sample.duration.as_secs_f64());
        metrics
            .data_wait_seconds
            .inc_by(facts.data_wait.as_secs_f64());
        if sample.supervised_tokens > 0 {
            metrics
                .loss
                .set(sample.loss_sum / sample.supervised_tokens as f64);
        }
        if outcome.skipped {
            metrics.non_finite_steps.inc();
        }
        let peak = self.memory();
        self.published
            .update(|progress| self.fill(progress, state, facts, peak));
        let log = state.step.is_multiple_of(self.log_every_steps.max(1));
        self.console
            .step(&self.published.progress(), outcome.grad_norm, log);
    }

    fn fill(&self, progress: &mut Progress, state: &State, facts: &StepFacts, peak: i64) {
        let throughput = self.window.throughput();
        let left = progress.total_steps.saturating_sub(state.step as i64) as f64;
        progress.step = state.step as i64;
        progress.epoch = facts.epoch;
        // JSON has no NaN: a loss that is none is left out.
        progress.loss = self.window.mean_loss().filter(|loss| loss.is_finite());
        progress.learning_rate = Some(facts.rates.language);
        progress.tokens_per_second = Some(throughput.tokens);
        progress.images_per_second = Some(throughput.images);
        progress.peak_memory_bytes = Some(peak);
        progress.eta_seconds = self.window.seconds_per_step().map(|step| step * left);
    }

    /// Reads memory into the metrics; returns the peak, bytes: the GPU's, or this process's.
    fn memory(&self) -> i64 {
        let process = process_memory();
        self.metrics.set_process_memory(&process);
        let gpu = self.gpu.as_ref().map(GpuMonitor::sample);
        if let Some(sample) = &gpu {
            self.metrics.set_gpu(sample);
        }
        gpu.and_then(|sample| sample.peak)
            .unwrap_or(process.peak as i64)
    }

    pub(super) fn evaluated(&self, step: u64, loss: Option<f64>) {
        if let Some(loss) = loss {
            self.metrics.validation_loss.set(loss);
            self.console
                .message(&format!("step {step}: validation loss {loss:.4}"));
        }
    }

    pub(super) fn checkpointed(&self, made: &Made) {
        let Made {
            checkpoint,
            stalled,
            took,
        } = made;
        let bytes = checkpoint.manifest.bytes();
        let (stalled, took) = (stalled.as_secs_f64(), took.as_secs_f64());
        self.metrics.checkpoint_seconds.observe(stalled);
        self.metrics.checkpoint_write_seconds.observe(took);
        self.metrics.checkpoint_bytes.set(bytes as f64);
        self.metrics
            .checkpoint_step
            .set(checkpoint.manifest.step as f64);
        let report = self.checkpoint_report(checkpoint);
        self.published
            .update(|progress| progress.last_checkpoint = Some(report));
        self.console.message(&format!(
            "step {}: checkpoint {} ({:.1} MiB in {took:.2} s, of which training stood still for \
             {stalled:.2} s)",
            checkpoint.manifest.step,
            checkpoint.folder.display(),
            bytes as f64 / f64::from(1 << 20),
        ));
    }

    fn checkpoint_report(&self, checkpoint: &Checkpoint) -> CheckpointReport {
        CheckpointReport {
            step: checkpoint.manifest.step as i64,
            path: self.relative(&checkpoint.folder),
            digest: checkpoint.digest.clone(),
            time: checkpoint.manifest.time.clone(),
        }
    }

    /// A path as the volume's users know it.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.volume)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

/// What the loop knows about a step beside its outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepFacts {
    pub rates: LearningRates,
    pub epoch: f64,
    pub data_wait: Duration,
}
