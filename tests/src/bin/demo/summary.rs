//! What the demo reports: on the screen and as JSON.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use serde::Serialize;
use vlft_crds::VLFineTune;

use crate::accuracy::Accuracy;

/// One attempt of the run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptSummary {
    pub number: i64,
    pub verdict: String,
    pub last_step: Option<i64>,
    pub resumed_from_step: Option<i64>,
}

/// The figures of the run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub steps: i64,
    pub final_loss: f64,
    pub validation_loss: Option<f64>,
    /// Share of held-out images whose generated text equals the label.
    pub accuracy: f64,
    pub held_out_samples: u64,
    pub tokens_per_second: f64,
    pub images_per_second: f64,
    pub peak_memory_bytes: i64,
    pub checkpoint: String,
    pub model: String,
    pub attempts: Vec<AttemptSummary>,
    /// From the start of the installation to the last figure.
    pub seconds: f64,
    pub kubernetes_version: String,
    pub nodes: usize,
}

impl Summary {
    /// Takes the figures from the finished resource.
    pub async fn collect(
        client: &Client,
        finetune: &VLFineTune,
        accuracy: &Accuracy,
        elapsed: Duration,
    ) -> Result<Self> {
        let status = finetune.status.clone().unwrap_or_default();
        let progress = status
            .progress
            .context("the finished run reports no progress")?;
        let result = status
            .result
            .context("the finished run reports no result")?;
        let checkpoint = status
            .last_checkpoint
            .context("the finished run has no checkpoint")?;
        let attempts = status.attempts.iter().map(attempt_summary).collect();
        let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(client.clone());
        Ok(Self {
            steps: progress.step,
            final_loss: number(result.final_loss.as_deref(), "result.finalLoss")?,
            validation_loss: result.validation_loss.and_then(|loss| loss.parse().ok()),
            accuracy: accuracy.accuracy,
            held_out_samples: accuracy.samples,
            tokens_per_second: number(progress.tokens_per_second.as_deref(), "tokensPerSecond")?,
            images_per_second: number(progress.images_per_second.as_deref(), "imagesPerSecond")?,
            peak_memory_bytes: progress
                .peak_memory_bytes
                .context("no peak memory reported")?,
            checkpoint: checkpoint.path,
            model: result.model_uri,
            attempts,
            seconds: elapsed.as_secs_f64(),
            kubernetes_version: client.apiserver_version().await?.git_version,
            nodes: nodes
                .list(&kube::api::ListParams::default())
                .await?
                .items
                .len(),
        })
    }

    /// Prints the figures for a person.
    pub fn print(&self) {
        println!();
        println!("   steps             {}", self.steps);
        println!("   final loss        {:.4}", self.final_loss);
        if let Some(loss) = self.validation_loss {
            println!("   validation loss   {loss:.4}");
        }
        println!(
            "   accuracy          {:.1} % of {} held-out images, by greedy generation",
            self.accuracy * 100.0,
            self.held_out_samples
        );
        println!("   tokens/s          {:.0}", self.tokens_per_second);
        println!("   images/s          {:.1}", self.images_per_second);
        println!("   peak memory       {} MiB", self.peak_memory_bytes >> 20);
        println!("   checkpoint        {}", self.checkpoint);
        println!("   model             {}", self.model);
        for attempt in &self.attempts {
            println!(
                "   attempt {}         {}",
                attempt.number,
                describe(attempt)
            );
        }
        println!();
    }
}

fn attempt_summary(attempt: &vlft_crds::status::Attempt) -> AttemptSummary {
    AttemptSummary {
        number: attempt.number,
        verdict: attempt
            .verdict
            .as_ref()
            .map_or("Running", |verdict| verdict.class.as_str())
            .to_owned(),
        last_step: attempt.last_step,
        resumed_from_step: attempt.resumed_from.as_ref().map(|from| from.step),
    }
}

fn describe(attempt: &AttemptSummary) -> String {
    let from = match attempt.resumed_from_step {
        Some(step) => format!("from step {step}"),
        None => "from the start".to_owned(),
    };
    let to = attempt
        .last_step
        .map_or(String::new(), |step| format!(" to step {step}"));
    format!("{} ({from}{to})", attempt.verdict)
}

fn number(text: Option<&str>, what: &str) -> Result<f64> {
    let text = text.with_context(|| format!("the finished run reports no {what}"))?;
    text.parse()
        .with_context(|| format!("{what} is no number: {text}"))
}
