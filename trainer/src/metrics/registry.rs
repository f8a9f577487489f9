//! All metrics of a trainer process, under the names of `vlft_crds::metric_names`.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, Opts, Registry,
    exponential_buckets,
};
use vlft_crds::metric_names::{Metric, label, trainer as names};

use super::{GpuSample, ProcessMemory, Throughput};
use crate::error::{Error, Result};

/// Who this process is; labels of every metric.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    pub finetune: String,
    pub finetune_namespace: String,
    pub attempt: i64,
    pub rank: i64,
}

/// Handles of all metrics; clones share values.
#[derive(Debug, Clone)]
pub struct TrainerMetrics {
    pub tokens: IntCounter,
    pub supervised_tokens: IntCounter,
    pub samples: IntCounter,
    pub images: IntCounter,
    tokens_per_second: Gauge,
    samples_per_second: Gauge,
    images_per_second: Gauge,
    pub step: Gauge,
    pub total_steps: Gauge,
    pub epoch: Gauge,
    pub loss: Gauge,
    pub validation_loss: Gauge,
    pub learning_rate: Gauge,
    pub gradient_norm: Gauge,
    pub non_finite_steps: IntCounter,
    pub step_seconds: Histogram,
    pub data_wait_seconds: Counter,
    pub samples_dropped: IntCounter,
    process_memory: Gauge,
    process_memory_peak: Gauge,
    gpu: GpuGauges,
    pub checkpoint_seconds: Histogram,
    pub checkpoint_write_seconds: Histogram,
    pub checkpoint_bytes: Gauge,
    pub checkpoint_step: Gauge,
}

#[derive(Debug, Clone)]
struct GpuGauges {
    allocated: GaugeVec,
    reserved: GaugeVec,
    peak: GaugeVec,
    used: GaugeVec,
    total: GaugeVec,
    utilization: GaugeVec,
}

/// Registers metrics with the labels of one process.
struct Maker<'a> {
    registry: &'a Registry,
    labels: HashMap<String, String>,
}

impl TrainerMetrics {
    /// Registers everything in `registry`; once per registry.
    pub fn new(registry: &Registry, labels: &Labels) -> Result<Self> {
        let make = Maker::new(registry, labels);
        // Steps from 10 ms to 22 minutes, checkpoints from 10 ms to 22 minutes.
        let buckets = exponential_buckets(0.01, 1.8, 21).map_err(unregistered)?;
        Ok(Self {
            tokens: make.int_counter(names::TOKENS)?,
            supervised_tokens: make.int_counter(names::SUPERVISED_TOKENS)?,
            samples: make.int_counter(names::SAMPLES)?,
            images: make.int_counter(names::IMAGES)?,
            tokens_per_second: make.gauge(names::TOKENS_PER_SECOND)?,
            samples_per_second: make.gauge(names::SAMPLES_PER_SECOND)?,
            images_per_second: make.gauge(names::IMAGES_PER_SECOND)?,
            step: make.gauge(names::STEP)?,
            total_steps: make.gauge(names::TOTAL_STEPS)?,
            epoch: make.gauge(names::EPOCH)?,
            loss: make.gauge(names::LOSS)?,
            validation_loss: make.gauge(names::VALIDATION_LOSS)?,
            learning_rate: make.gauge(names::LEARNING_RATE)?,
            gradient_norm: make.gauge(names::GRADIENT_NORM)?,
            non_finite_steps: make.int_counter(names::NON_FINITE_STEPS)?,
            step_seconds: make.histogram(names::STEP_SECONDS, buckets.clone())?,
            data_wait_seconds: make.counter(names::DATA_WAIT_SECONDS)?,
            samples_dropped: make.int_counter(names::SAMPLES_DROPPED)?,
            process_memory: make.gauge(names::PROCESS_MEMORY)?,
            process_memory_peak: make.gauge(names::PROCESS_MEMORY_PEAK)?,
            gpu: GpuGauges::new(&make)?,
            checkpoint_seconds: make.histogram(names::CHECKPOINT_SECONDS, buckets.clone())?,
            checkpoint_write_seconds: make.histogram(names::CHECKPOINT_WRITE_SECONDS, buckets)?,
            checkpoint_bytes: make.gauge(names::CHECKPOINT_BYTES)?,
            checkpoint_step: make.gauge(names::CHECKPOINT_STEP)?,
        })
    }

    pub fn set_throughput(&self, throughput: &Throughput) {
        self.tokens_per_second.set(throughput.tokens);
        self.samples_per_second.set(throughput.samples);
        self.images_per_second.set(throughput.images);
    }

    pub fn set_process_memory(&self, memory: &ProcessMemory) {
        self.process_memory.set(memory.resident as f64);
        self.process_memory_peak.set(memory.peak as f64);
    }

    pub fn set_gpu(&self, sample: &GpuSample) {
        let gpu = sample.index.to_string();
        let set = |gauge: &GaugeVec, value: Option<f64>| {
            if let Some(value) = value {
                gauge.with_label_values(&[&gpu]).set(value);
            }
        };
        let bytes = |value: Option<i64>| value.map(|bytes| bytes as f64);
        set(&self.gpu.allocated, bytes(sample.allocated));
        set(&self.gpu.reserved, bytes(sample.reserved));
        set(&self.gpu.peak, bytes(sample.peak));
        set(&self.gpu.used, bytes(sample.used));
        set(&self.gpu.total, bytes(sample.total));
        set(&self.gpu.utilization, sample.utilization);
    }
}

impl GpuGauges {
    fn new(make: &Maker) -> Result<Self> {
        Ok(Self {
            allocated: make.gpu_gauge(names::GPU_MEMORY_ALLOCATED)?,
            reserved: make.gpu_gauge(names::GPU_MEMORY_RESERVED)?,
            peak: make.gpu_gauge(names::GPU_MEMORY_PEAK)?,
            used: make.gpu_gauge(names::GPU_MEMORY_USED)?,
            total: make.gpu_gauge(names::GPU_MEMORY_TOTAL)?,
            utilization: make.gpu_gauge(names::GPU_UTILIZATION)?,
        })
    }
}

impl<'a> Maker<'a> {
    fn new(registry: &'a Registry, labels: &Labels) -> Self {
        let Labels {
            finetune,
            finetune_namespace,
            attempt,
            rank,
        } = labels;
        let labels = [
            (label::FINETUNE, finetune.clone()),
            (label::FINETUNE_NAMESPACE, finetune_namespace.clone()),
            (label::ATTEMPT, attempt.to_string()),
            (label::RANK, rank.to_string()),
        ];
        Self {
            registry,
            labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    fn opts(&self, metric: Metric) -> Opts {
        Opts::new(metric.name, metric.help).const_labels(self.labels.clone())
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> Result<C> {
        let collector = made.map_err(unregistered)?;
        let registered = self.registry.register(Box::new(collector.clone()));
        registered.map_err(unregistered)?;
        Ok(collector)
    }

    fn gauge(&self, metric: Metric) -> Result<Gauge> {
        self.register(Gauge::with_opts(self.opts(metric)))
    }

    fn gpu_gauge(&self, metric: Metric) -> Result<GaugeVec> {
        self.register(GaugeVec::new(self.opts(metric), &[label::GPU]))
    }

    fn counter(&self, metric: Metric) -> Result<Counter> {
        self.register(Counter::with_opts(self.opts(metric)))
    }

    fn int_counter(&self, metric: Metric) -> Result<IntCounter> {
        self.register(IntCounter::with_opts(self.opts(metric)))
    }

    fn histogram(&self, metric: Metric, buckets: Vec<f64>) -> Result<Histogram> {
        let opts = HistogramOpts::from(self.opts(metric)).buckets(buckets);
        self.register(Histogram::with_opts(opts))
    }
}

fn unregistered(cause: prometheus::Error) -> Error {
    Error::Bug(format!("metrics: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn every_name_of_the_vocabulary_is_exposed_with_all_labels() {
        let registry = Registry::new();
        let labels = Labels {
            finetune: "digits".into(),
            finetune_namespace: "team".into(),
            attempt: 2,
            rank: 0,
        };
        let metrics = TrainerMetrics::new(&registry, &labels).unwrap();
        metrics.set_gpu(&GpuSample {
            index: 1,
            allocated: Some(1),
            reserved: Some(2),
            peak: Some(3),
            used: Some(4),
            total: Some(5),
            utilization: Some(0.5),
        });
        let families = registry.gather();
        let exposed: BTreeSet<_> = families.iter().map(|family| family.name()).collect();
        let promised: BTreeSet<_> = names::ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(exposed, promised);
        let text = TextEncoder::new().encode_to_string(&families).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            for part in [
                "finetune=\"digits\"",
                "finetune_namespace=\"team\"",
                "attempt=\"2\"",
                "rank=\"0\"",
            ] {
                assert!(line.contains(part), "{line}");
            }
        }
        assert!(text.contains("gpu=\"1\""), "{text}");
    }

    #[test]
    fn a_second_set_in_one_registry_is_refused() {
        let registry = Registry::new();
        TrainerMetrics::new(&registry, &Labels::default()).unwrap();
        assert!(TrainerMetrics::new(&registry, &Labels::default()).is_err());
    }
}
