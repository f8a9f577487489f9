//! Accuracy on the held-out digits: the trained model's greedy text against the label.

use anyhow::{Context, Result, bail};
use kube::Client;
use serde::Deserialize;
use vlft_crds::VLFineTune;
use vlft_crds::uri::Uri;

use crate::jobs::{self, Mount};
use crate::{CLAIM, Settings};

/// What `trainer generate --data` prints as JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accuracy {
    pub samples: u64,
    pub exact_matches: u64,
}

impl Accuracy {
    /// Share of samples whose text equals the label.
    pub fn share(&self) -> f64 {
        self.exact_matches as f64 / self.samples.max(1) as f64
    }
}

/// Runs `trainer generate` in the cluster on the validation part.
pub async fn measure(
    settings: &Settings,
    client: &Client,
    finetune: &VLFineTune,
) -> Result<Accuracy> {
    let (claim, path) = model_location(finetune)?;
    let command = [
        "trainer",
        "generate",
        &format!("/run-volume/{path}"),
        "--data",
        "/volume/digits/validation",
        "--prompt",
        &finetune.spec.dataset.prompt,
        "--max-new-tokens",
        "16",
        "--json",
    ]
    .map(str::to_owned);
    let mounts = [
        Mount {
            claim: CLAIM.to_owned(),
            path: "/volume",
        },
        Mount {
            claim,
            path: "/run-volume",
        },
    ];
    let image = &settings.trainer_image;
    let output = jobs::run(client, "held-out-accuracy", image, &command, &mounts).await?;
    let json = output
        .lines()
        .rev()
        .find(|line| line.starts_with('{') && line.contains("exactMatches"))
        .with_context(|| format!("`trainer generate` printed no figures:\n{output}"))?;
    serde_json::from_str(json).with_context(|| format!("not the expected figures: {json}"))
}

fn model_location(finetune: &VLFineTune) -> Result<(String, String)> {
    let status = finetune.status.clone().unwrap_or_default();
    let result = status
        .result
        .context("the finished run reports no result")?;
    match Uri::parse(&result.model_uri)? {
        Uri::Claim { claim, path } => Ok((claim, path)),
        other => bail!("the model is not on a volume: {other}"),
    }
}
