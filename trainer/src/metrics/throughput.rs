//! Rates and the mean loss over the last steps.

use std::collections::VecDeque;
use std::time::Duration;

/// What one optimizer step did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepSample {
    pub tokens: u64,
    pub supervised_tokens: u64,
    pub samples: u64,
    pub images: u64,
    /// Cross-entropy summed over supervised tokens, nats.
    pub loss_sum: f64,
    /// The whole step, waiting for data included.
    pub duration: Duration,
}

/// Per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Throughput {
    pub tokens: f64,
    pub samples: f64,
    pub images: f64,
}

/// The last steps, at most as many as a log line covers.
#[derive(Debug, Clone)]
pub struct Window {
    capacity: usize,
    steps: VecDeque<StepSample>,
}

impl Window {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            steps: VecDeque::new(),
        }
    }

    pub fn push(&mut self, step: StepSample) {
        if self.steps.len() == self.capacity {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
    }

    /// Zero before the first step.
    pub fn throughput(&self) -> Throughput {
        let seconds: f64 = self.steps.iter().map(|s| s.duration.as_secs_f64()).sum();
        if seconds <= 0.0 {
            return Throughput::default();
        }
        let rate = |part: fn(&StepSample) -> u64| {
            self.steps.iter().map(part).sum::<u64>() as f64 / seconds
        };
        Throughput {
            tokens: rate(|s| s.tokens),
            samples: rate(|s| s.samples),
            images: rate(|s| s.images),
        }
    }

    /// Mean seconds of a step; `None` before the first.
    pub fn seconds_per_step(&self) -> Option<f64> {
        let seconds: f64 = self.steps.iter().map(|s| s.duration.as_secs_f64()).sum();
        (!self.steps.is_empty()).then(|| seconds / self.steps.len() as f64)
    }

    /// Mean loss per supervised token; `None` if nothing was supervised.
    pub fn mean_loss(&self) -> Option<f64> {
        let supervised: u64 = self.steps.iter().map(|s| s.supervised_tokens).sum();
        let sum: f64 = self.steps.iter().map(|s| s.loss_sum).sum();
        (supervised > 0).then(|| sum / supervised as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(supervised_tokens: u64, loss_sum: f64, seconds: u64) -> StepSample {
        StepSample {
            tokens: 100,
            supervised_tokens,
            samples: 4,
            images: 2,
            loss_sum,
            duration: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn means_weigh_by_tokens_and_time_and_forget_old_steps() {
        let mut window = Window::new(2);
        assert_eq!(window.throughput(), Throughput::default());
        assert_eq!(
            (window.mean_loss(), window.seconds_per_step()),
            (None, None)
        );
        window.push(step(1, 1e9, 1000));
        window.push(step(1, 4.0, 1));
        window.push(step(3, 0.0, 3));
        assert_eq!(window.mean_loss(), Some(1.0));
        assert_eq!(window.seconds_per_step(), Some(2.0));
        let expected = Throughput {
            tokens: 50.0,
            samples: 2.0,
            images: 1.0,
        };
        assert_eq!(window.throughput(), expected);
    }
}
