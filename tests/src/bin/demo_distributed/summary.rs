//! What is reported: on the screen and as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use vlft_crds::status::{FailureClass, VLFineTuneStatus};

use crate::fence::Fence;

/// One run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub name: String,
    pub accident: String,
    /// How the first attempt ended.
    pub verdict: String,
    #[serde(skip)]
    class: FailureClass,
    pub attempts: usize,
    pub resumed_from_step: Option<i64>,
    /// Steps that were taken twice.
    pub lost_steps: Option<i64>,
    /// From the accident until the next attempt had taken a step.
    pub seconds_lost: Option<f64>,
    /// sha256 of the exported weights.
    pub weights: String,
}

/// All of them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub runs: Vec<Run>,
    pub fence: Fence,
    pub seconds: f64,
}

impl Run {
    pub fn undisturbed(status: &VLFineTuneStatus, weights: String) -> Self {
        Self {
            name: "undisturbed".into(),
            accident: "none".into(),
            verdict: "Completed".into(),
            class: FailureClass::Completed,
            attempts: status.attempts.len(),
            resumed_from_step: None,
            lost_steps: None,
            seconds_lost: None,
            weights,
        }
    }

    /// Of a run with one accident.
    pub fn disturbed(
        name: &str,
        accident: &str,
        status: &VLFineTuneStatus,
        seconds_lost: f64,
        weights: String,
    ) -> Result<Self> {
        let first = status.attempts.first().context("no attempt")?;
        let verdict = first.verdict.as_ref().context("no verdict")?;
        let second = status.attempts.get(1).context("no second attempt")?;
        let resumed = second.resumed_from.as_ref().map(|from| from.step);
        let last = first.last_step;
        Ok(Self {
            name: name.into(),
            accident: accident.into(),
            verdict: format!("{}: {}", verdict.class.as_str(), verdict.message),
            class: verdict.class,
            attempts: status.attempts.len(),
            resumed_from_step: resumed,
            lost_steps: last.zip(resumed).map(|(last, from)| (last - from).max(0)),
            seconds_lost: Some(seconds_lost),
            weights,
        })
    }

    /// Whether the first attempt made a last checkpoint, at whatever step.
    pub fn was_drained(&self) -> bool {
        self.class == FailureClass::Drained
    }

    pub fn class_of_first(&self) -> FailureClass {
        self.class
    }
}

impl Summary {
    /// Prints the figures for a person.
    pub fn print(&self) {
        println!();
        for run in &self.runs {
            let weights = run.weights.get(..12).unwrap_or(&run.weights);
            println!("   {:<12} weights {weights}  {}", run.name, run.verdict);
            if let (Some(seconds), Some(steps)) = (run.seconds_lost, run.lost_steps) {
                println!("   {:<12} lost {seconds:.1} s and {steps} steps", "");
            }
        }
        let by = |attempt| {
            let all = self.fence.checkpoints.iter();
            all.filter(|p| p.attempt == attempt).count()
        };
        println!(
            "   cut-off      checkpoints: {} of attempt 1, {} of attempt 2; the cut-off trainer \
             left by itself after {:.0} s",
            by(1),
            by(2),
            self.fence.seconds_until_left
        );
        println!();
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("the summary has no folder")?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("figures: out/demo-distributed/summary.json");
        Ok(())
    }
}
