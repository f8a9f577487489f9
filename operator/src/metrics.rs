//! What the operator measures of itself. The registry is handed in; names and help texts are
//! the crds crate's.

use std::collections::BTreeMap;
use std::time::Instant;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use vlft_crds::metric_names::{Metric, operator};
use vlft_crds::plan::remedy;
use vlft_crds::status::FailureClass;

use crate::controller::Error;

/// Buckets of a reconciliation's duration, seconds: one request takes a few milliseconds.
const SECONDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    finetunes: IntGaugeVec,
    reconciles: IntCounterVec,
    reconcile_seconds: Histogram,
    reconcile_errors: IntCounterVec,
    attempts: IntCounterVec,
    lost_steps: IntCounterVec,
    lost_gpu_seconds: IntCounterVec,
    adjustments: IntCounterVec,
    leader: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn new(registry: Registry) -> prometheus::Result<Self> {
        let opts = |metric: Metric| Opts::new(metric.name, metric.help);
        let seconds = operator::RECONCILE_SECONDS;
        let seconds = HistogramOpts::new(seconds.name, seconds.help).buckets(SECONDS.into());
        let metrics = Self {
            finetunes: IntGaugeVec::new(
                opts(operator::FINETUNES),
                &["finetune_namespace", "phase"],
            )?,
            reconciles: IntCounterVec::new(opts(operator::RECONCILES), &["result"])?,
            reconcile_seconds: Histogram::with_opts(seconds)?,
            reconcile_errors: IntCounterVec::new(opts(operator::RECONCILE_ERRORS), &["kind"])?,
            attempts: IntCounterVec::new(opts(operator::ATTEMPTS), &["class"])?,
            lost_steps: IntCounterVec::new(opts(operator::LOST_STEPS), &["class"])?,
            lost_gpu_seconds: IntCounterVec::new(opts(operator::LOST_GPU_SECONDS), &["class"])?,
            adjustments: IntCounterVec::new(opts(operator::ADJUSTMENTS), &["field"])?,
            leader: IntGauge::with_opts(opts(operator::LEADER))?,
            registry,
        };
        metrics.register()?;
        // Present from the start: a rate over a series that appears at 1 misses the first.
        for result in ["success", "error"] {
            metrics.reconciles.with_label_values(&[result]);
        }
        for field in remedy::FIELDS {
            metrics.adjustments.with_label_values(&[field]);
        }
        Ok(metrics)
    }

    fn register(&self) -> prometheus::Result<()> {
        let Self {
            registry,
            finetunes,
            reconciles,
            reconcile_seconds,
            reconcile_errors,
            attempts,
            lost_steps,
            lost_gpu_seconds,
            adjustments,
            leader,
        } = self;
        registry.register(Box::new(finetunes.clone()))?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        registry.register(Box::new(reconcile_errors.clone()))?;
        registry.register(Box::new(attempts.clone()))?;
        registry.register(Box::new(lost_steps.clone()))?;
        registry.register(Box::new(lost_gpu_seconds.clone()))?;
        registry.register(Box::new(adjustments.clone()))?;
        registry.register(Box::new(leader.clone()))
    }

    /// Starts a measurement; one that is dropped unfinished is measured too.
    pub fn start_reconcile(&self) -> ReconcileTimer<'_> {
        ReconcileTimer {
            metrics: self,
            started: Instant::now(),
        }
    }

    /// Counts an attempt that ended.
    pub fn attempt_ended(&self, class: FailureClass) {
        self.attempts.with_label_values(&[class.as_str()]).inc();
        // What it cost is known once the next attempt has resumed; until then 0.
        self.work_lost(class.as_str(), 0, 0);
    }

    /// Counts work that a cause made a run repeat.
    pub fn work_lost(&self, class: &str, steps: u64, gpu_seconds: u64) {
        self.lost_steps.with_label_values(&[class]).inc_by(steps);
        let seconds = self.lost_gpu_seconds.with_label_values(&[class]);
        seconds.inc_by(gpu_seconds);
    }

    /// Counts a change of a plan after an out-of-memory.
    pub fn plan_adjusted(&self, field: &str) {
        self.adjustments.with_label_values(&[field]).inc();
    }

    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Sets the number of VLFineTunes by namespace and phase.
    pub fn set_finetunes(&self, counts: &BTreeMap<(String, String), i64>) {
        self.finetunes.reset();
        for ((namespace, phase), count) in counts {
            self.finetunes
                .with_label_values(&[namespace.as_str(), phase.as_str()])
                .set(*count);
        }
    }

    /// All of them in the text format.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Measures one reconciliation until it is dropped.
#[derive(Debug)]
pub struct ReconcileTimer<'a> {
    metrics: &'a Metrics,
    started: Instant,
}

impl ReconcileTimer<'_> {
    pub fn finish(self, error: Option<&Error>) {
        let result = if error.is_some() { "error" } else { "success" };
        self.metrics.reconciles.with_label_values(&[result]).inc();
        if let Some(error) = error {
            self.metrics
                .reconcile_errors
                .with_label_values(&[error.kind()])
                .inc();
        }
    }
}

impl Drop for ReconcileTimer<'_> {
    fn drop(&mut self) {
        self.metrics
            .reconcile_seconds
            .observe(self.started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_list_is_exposed() {
        let metrics = Metrics::new(Registry::new()).unwrap();
        metrics.start_reconcile().finish(Some(&Error::TimedOut));
        metrics.attempt_ended(FailureClass::Bug);
        metrics.work_lost("Bug", 3, 90);
        metrics.plan_adjusted("training.lossChunk");
        metrics.set_leader(true);
        metrics.set_finetunes(&[(("ns".to_owned(), "Running".to_owned()), 2)].into());
        let text = metrics.render().unwrap();
        for metric in operator::ALL {
            assert!(
                text.contains(&format!("# HELP {} ", metric.name)),
                "{}",
                metric.name
            );
        }
        for line in [
            "vlft_operator_reconcile_errors_total{kind=\"TimedOut\"} 1",
            "vlft_operator_attempts_total{class=\"Bug\"} 1",
            "vlft_operator_finetunes{finetune_namespace=\"ns\",phase=\"Running\"} 2",
            "vlft_operator_reconcile_seconds_count 1",
            "vlft_operator_lost_steps_total{class=\"Bug\"} 3",
            "vlft_operator_lost_gpu_seconds_total{class=\"Bug\"} 90",
            "vlft_operator_memory_adjustments_total{field=\"training.lossChunk\"} 1",
            "vlft_operator_leader 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
