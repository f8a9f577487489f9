//! Accidents of runs that span two pods with two processes each: each run ends with the weights
//! of an undisturbed one. `scripts/demo.sh distributed` brings cluster, images and Helm.

mod accident;
mod fence;
mod summary;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::{TestNamespace, digits, operator, runs, with_temp_ns_exclusive};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use vlft_crds::VLFineTune;
use vlft_crds::parallelism::Strategy;

use crate::accident::Accident;
use crate::summary::{Run, Summary};

/// Longest time for one run.
pub const END: Duration = Duration::from_secs(240);
/// Optimizer steps of each run.
pub const STEPS: i64 = 60;
pub const CHECKPOINT_EVERY: i64 = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let root = std::env::var("VLFT_ROOT").context("VLFT_ROOT is not set; run `make`")?;
    let begin = Instant::now();
    with_temp_ns_exclusive("distributed", async |ns| {
        say("installing the operator and filling the volume");
        operator::ensure_operator(&ns.client).await?;
        digits::fill_volume(ns).await?;
        let summary = Summary {
            runs: accidents(ns).await?,
            fence: fence::show(ns).await?,
            seconds: begin.elapsed().as_secs_f64(),
        };
        summary.print();
        summary.write(&Path::new(&root).join("out/demo-distributed/summary.json"))
    })
    .await
}

/// An undisturbed run, then one run for each accident.
async fn accidents(ns: &TestNamespace) -> Result<Vec<Run>> {
    say("two pods with two processes each, Zero3, undisturbed");
    digits::start(ns, "undisturbed", two_by_two).await?;
    let status = runs::succeeded(ns, "undisturbed", END).await?;
    let expected = runs::weights_digest(ns, "undisturbed", &status).await?;
    let mut all = vec![Run::undisturbed(&status, expected.clone())];
    for accident in Accident::ALL {
        say(accident.words());
        let run = accident.run(ns).await?;
        ensure!(
            run.weights == expected,
            "{}: the weights are {}, not {expected} as undisturbed",
            accident.name(),
            run.weights
        );
        all.push(run);
    }
    Ok(all)
}

/// A short run over both nodes, with states, gradients and parameters sharded.
pub fn two_by_two(finetune: &mut VLFineTune) {
    short(finetune);
    finetune.spec.parallelism.strategy = Strategy::Zero3;
    let workers = &mut finetune.spec.workers;
    workers.replicas = 2;
    workers.processes_per_replica = Some(2);
    workers.pod_overrides.topology_spread_constraints = accident::spread();
    // When one node is lost, the other one has room for both pods.
    let cpu = Quantity("250m".into());
    workers.resources.requests.insert("cpu".into(), cpu);
}

/// A short run of one process.
pub fn short(finetune: &mut VLFineTune) {
    let spec = &mut finetune.spec;
    spec.training.max_steps = Some(STEPS);
    spec.training.warmup_steps = Some(4);
    spec.training.log_every_steps = 1;
    spec.checkpoint.every_steps = CHECKPOINT_EVERY;
    spec.dataset.validation.clear();
    spec.run_policy.node_lost_timeout_seconds = 5;
}

/// Says what happens now.
pub fn say(what: &str) {
    println!("== {what}");
}
