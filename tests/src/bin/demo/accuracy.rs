//! Accuracy on the held-out digits: the trained model's greedy text against the label.

use anyhow::{Context, Result, bail};
use kube::Client;
use serde::Deserialize;
use vlft_crds::VLFineTune;
use vlft_crds::uri::Uri;

use integration::jobs::{self, Mount};

use crate::{CLAIM, NAMESPACE, Settings};

/// The summary that `trainer generate --data` writes.
#[derive(Debug, Clone, Deserialize)]
pub struct Accuracy {
    pub samples: u64,
    /// Share of samples whose text equals the label, 0 to 1.
    pub accuracy: f64,
}

/// Runs `trainer generate` in the cluster on the validation part.
pub async fn measure(
    settings: &Settings,
    client: &Client,
    finetune: &VLFineTune,
) -> Result<Accuracy> {
    let (claim, path) = model_location(finetune)?;
    let script = format!(
        "trainer generate /run-volume/{path} --data /volume/digits/validation \
         --prompt \"$PROMPT\" --max-new-tokens 16 --summary /tmp/summary.json >/dev/null && cat /tmp/summary.json"
    );
    let script = format!("PROMPT='{}'; {script}", finetune.spec.dataset.prompt);
    let command = ["/bin/sh", "-c", &script].map(str::to_owned);
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
    let output = jobs::run(
        client,
        NAMESPACE,
        "held-out-accuracy",
        image,
        &command,
        &mounts,
    )
    .await?;
    let json = output
        .lines()
        .rev()
        .find(|line| line.contains("\"accuracy\""));
    let json = json.with_context(|| format!("`trainer generate` gave no figures:\n{output}"))?;
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
