//! A trainer that is cut off lives on, and publishes nothing.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use integration::{
    TestNamespace, cluster_command, cordon, digits, jobs, operator, runs, wait_for,
    wait_node_ready, worker_nodes,
};
use serde::{Deserialize, Serialize};
use vlft_crds::status::{FailureClass, VLFineTuneStatus};
use vlft_crds::uri::Uri;

use crate::{CHECKPOINT_EVERY, END, STEPS, say, short};

const NAME: &str = "cut-off";
/// More steps than the others: the cut-off trainer must still be at work when the next begins.
const LONGER: i64 = 20;

/// What was seen of the fence.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// Steps of the checkpoints on the volume, each with the attempt that published it.
    pub checkpoints: Vec<Published>,
    /// From the cut until the cut-off trainer left by itself; nobody could reach its node.
    pub seconds_until_left: f64,
}

/// A manifest on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub step: i64,
    pub attempt: i64,
}

/// Cuts off the node of a single trainer, whose volume it can still write to.
pub async fn show(ns: &TestNamespace) -> Result<Fence> {
    say("a single trainer is cut off from the cluster, but not from its volume");
    let home = operator::node(&ns.client).await?;
    let nodes = worker_nodes(&ns.client).await?;
    let away = nodes.into_iter().find(|node| *node != home);
    let away = away.context("this takes two nodes")?;
    // The first attempt goes where the operator is not.
    cordon(&ns.client, &home, true).await?;
    let begun = begin(ns).await;
    cordon(&ns.client, &home, false).await?;
    begun?;
    let cut = Instant::now();
    cluster_command(&["cut", &away]).await?;
    let seen = while_cut(ns, cut).await;
    cluster_command(&["mend", &away]).await?;
    wait_node_ready(&ns.client, &away).await?;
    let (status, seconds_until_left) = seen?;
    let takeover = resumed_from(&status)?;
    let checkpoints = published(ns, &status).await?;
    let late = |p: &&Published| p.step > takeover && p.attempt != 2;
    let wrong: Vec<_> = checkpoints.iter().filter(late).collect();
    ensure!(wrong.is_empty(), "the cut-off trainer published {wrong:?}");
    ensure!(
        checkpoints.iter().any(|p| p.attempt == 2),
        "the second attempt published nothing: {checkpoints:?}"
    );
    Ok(Fence {
        checkpoints,
        seconds_until_left,
    })
}

async fn begin(ns: &TestNamespace) -> Result<()> {
    digits::start(ns, NAME, |finetune| {
        short(finetune);
        finetune.spec.training.max_steps = Some(STEPS * LONGER);
        finetune.spec.checkpoint.keep_last = STEPS * LONGER / CHECKPOINT_EVERY;
    })
    .await?;
    runs::first_checkpoint(ns, NAME, END).await.map(drop)
}

/// The second attempt begins elsewhere, and the first one's trainer notices.
async fn while_cut(ns: &TestNamespace, cut: Instant) -> Result<(VLFineTuneStatus, f64)> {
    let attempt_1 = [(vlft_crds::contract::env::ATTEMPT, "1")];
    let before = runs::processes(&ns.name, NAME, &attempt_1)?;
    ensure!(
        !before.is_empty(),
        "no trainer is visible before the node is lost"
    );
    wait_for("a second attempt that has resumed", END, async || {
        let status = runs::status(ns, NAME).await?;
        Ok(resumed_from(&status).ok())
    })
    .await?;
    wait_for("the cut-off trainer to leave", END, async || {
        let left = runs::processes(&ns.name, NAME, &attempt_1)?;
        Ok(left.is_empty().then_some(()))
    })
    .await?;
    let left = cut.elapsed().as_secs_f64();
    let status = runs::succeeded(ns, NAME, END).await?;
    let verdict = status.attempts[0].verdict.as_ref();
    ensure!(
        verdict.is_some_and(|verdict| verdict.class == FailureClass::NodeLost),
        "{verdict:?}"
    );
    Ok((status, left))
}

fn resumed_from(status: &VLFineTuneStatus) -> Result<i64> {
    let second = status.attempts.get(1).context("no second attempt")?;
    let from = second.resumed_from.as_ref();
    Ok(from.context("the second attempt has not resumed")?.step)
}

/// All manifests of the run, read where they are.
async fn published(ns: &TestNamespace, status: &VLFineTuneStatus) -> Result<Vec<Published>> {
    let result = status.result.as_ref().context("no result")?;
    let Uri::Claim { claim, path } = Uri::parse(&result.model_uri)? else {
        anyhow::bail!("the model is not on a volume: {}", result.model_uri);
    };
    let run = path.rsplit_once('/').map_or("", |(run, _)| run);
    let script = format!(
        "for m in /volume/{run}/checkpoints/*/manifest.json; do tr -d '\\n' < $m; echo; done"
    );
    let command = ["/bin/sh", "-c", &script].map(str::to_owned);
    let mount = jobs::Mount {
        claim,
        path: "/volume",
    };
    let image = operator::trainer_image();
    let printed = jobs::run(
        &ns.client,
        &ns.name,
        "manifests",
        &image,
        &command,
        &[mount],
    )
    .await?;
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("no manifest: {line}")))
        .collect()
}
