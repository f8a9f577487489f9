//! Applies the example and shows its progress until it ends.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::PostParams;
use kube::{Api, Client};
use vlft_crds::VLFineTune;
use vlft_crds::status::{Phase, VLFineTuneStatus};

use crate::{NAMESPACE, Settings};

/// Longest time for the whole run.
const DEADLINE: Duration = Duration::from_secs(900);
const BAR_WIDTH: usize = 30;

/// Creates the VLFineTune of the example.
pub async fn apply(settings: &Settings, client: &Client) -> Result<VLFineTune> {
    let api: Api<VLFineTune> = Api::namespaced(client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &settings.example()?)
        .await
        .context("the API server refused examples/digits.yaml")
}

/// Draws a bar until the run has ended well; its last state.
pub async fn until_finished(client: &Client, finetune: &VLFineTune) -> Result<VLFineTune> {
    let api: Api<VLFineTune> = Api::namespaced(client.clone(), NAMESPACE);
    let name = finetune.metadata.name.as_deref().unwrap_or_default();
    let start = Instant::now();
    let mut last_line = String::new();
    while start.elapsed() < DEADLINE {
        let current = api.get_status(name).await?;
        let status = current.status.clone().unwrap_or_default();
        draw(&line(&status), &mut last_line);
        match status.phase {
            Phase::Succeeded => {
                println!();
                return Ok(current);
            }
            Phase::Failed | Phase::Rejected => bail!("the run ended: {}", why(&status)),
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
    bail!(
        "the run did not end within {} s: {last_line}",
        DEADLINE.as_secs()
    )
}

fn line(status: &VLFineTuneStatus) -> String {
    let progress = status.progress.clone().unwrap_or_default();
    let total = progress.total_steps.max(1);
    let filled = (progress.step.clamp(0, total) as usize * BAR_WIDTH) / total as usize;
    format!(
        "   {:<10} [{}{}] {}/{} loss {} {} tokens/s {} images/s eta {}",
        format!("{:?}", status.phase),
        "#".repeat(filled),
        ".".repeat(BAR_WIDTH - filled),
        progress.step,
        progress.total_steps,
        progress.loss.unwrap_or_else(|| "-".to_owned()),
        progress.tokens_per_second.unwrap_or_else(|| "-".to_owned()),
        progress.images_per_second.unwrap_or_else(|| "-".to_owned()),
        progress.eta.unwrap_or_else(|| "-".to_owned()),
    )
}

/// On a terminal the line is drawn over; in a log each change is a line.
fn draw(line: &str, last: &mut String) {
    if line == last {
        return;
    }
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[2K{line}");
        // A terminal that cannot be written to has nobody to tell.
        let _ = std::io::stdout().flush();
    } else {
        println!("{line}");
    }
    last.clear();
    last.push_str(line);
}

fn why(status: &VLFineTuneStatus) -> String {
    let verdict = status
        .attempts
        .last()
        .and_then(|attempt| attempt.verdict.as_ref());
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .filter(|condition| !condition.message.is_empty())
        .map(|condition| {
            format!(
                "{}={}: {}",
                condition.type_, condition.status, condition.message
            )
        })
        .collect();
    match verdict {
        Some(verdict) => format!("{}: {}", verdict.class.as_str(), verdict.message),
        None => conditions.join("; "),
    }
}
