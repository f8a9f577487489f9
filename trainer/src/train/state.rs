//! What a run carries from step to step beside weights and optimizer.

use serde::{Deserialize, Serialize};

use crate::batch::Cursor;
use crate::metrics::StepSample;

/// Everything that a resume needs to go on as if nothing had happened. Random numbers need no
/// state of their own: each step's are seeded by (seed, step, micro-batch, rank).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Optimizer steps done, skipped ones included. In the manifest it has its own field.
    #[serde(skip)]
    pub step: u64,
    /// Where the data continues. In the manifest it has its own field.
    #[serde(skip, default = "start")]
    pub cursor: Cursor,
    pub totals: Totals,
    /// Steps skipped because loss or gradients were not finite.
    pub non_finite_steps: u64,
    /// Mean loss per supervised token of the last logged steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Mean loss per supervised token of the last evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
}

/// Sums since the run's first step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub tokens: u64,
    pub supervised_tokens: u64,
    pub samples: u64,
    pub images: u64,
}

fn start() -> Cursor {
    Cursor {
        epoch: 0,
        sample: 0,
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            step: 0,
            cursor: start(),
            totals: Totals::default(),
            non_finite_steps: 0,
            loss: None,
            validation_loss: None,
        }
    }
}

impl Totals {
    pub fn add(&mut self, step: &StepSample) {
        self.tokens += step.tokens;
        self.supervised_tokens += step.supervised_tokens;
        self.samples += step.samples;
        self.images += step.images;
    }
}
