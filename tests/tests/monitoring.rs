//! A real Prometheus scrapes the operator and a running job, and every dashboard query returns
//! data. GPU panels are tested against a recorded exposition: the test machines have no GPU.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::dashboards::{
    Query, alert_queries, panel_queries, series_names, with_everything_selected,
};
use integration::operator::ensure_operator;
use integration::prometheus::{Prometheus, serve_recorded};
use integration::{TestNamespace, chart, digits, wait_for, with_temp_ns};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use vlft_crds::VLFineTune;
use vlft_crds::contract::label;

#[tokio::test]
async fn every_query_returns_data() -> Result<()> {
    with_temp_ns("monitoring", async |ns| {
        ensure_operator(&ns.client).await?;
        digits::fill_volume(ns).await?;
        let recorded = serve_recorded(&chart::root().join("tests/monitoring/gpu.prom"))?;
        let prometheus = Prometheus::start(&ns.name, &[recorded])?;
        start_a_long_run(ns).await?;
        provoke_an_error(ns).await?;
        makes_steps(ns, 1).await?;
        series_are_labelled(&prometheus, ns)?;
        // An attempt that ends, for the panels that count them.
        kill_trainer(ns).await?;
        makes_steps(ns, 2).await?;
        all_return_data(&prometheus)?;
        alerts_are_evaluated(&prometheus)
    })
    .await
}

/// Longer than the test, with an evaluation and a checkpoint every few steps.
async fn start_a_long_run(ns: &TestNamespace) -> Result<VLFineTune> {
    digits::start(ns, "observed", |finetune| {
        let spec = &mut finetune.spec;
        spec.training.max_steps = Some(100_000);
        spec.training.global_batch_size = 8;
        spec.training.log_every_steps = 1;
        spec.evaluation.every_steps = Some(5);
        spec.checkpoint.every_steps = 5;
    })
    .await
}

/// A VLFineTune whose child's name is taken by an object that is not the operator's.
async fn provoke_an_error(ns: &TestNamespace) -> Result<()> {
    ns.create::<ConfigMap>(json!({"metadata": {"name": "taken-1"}}))
        .await?;
    digits::start(ns, "taken", |_| {}).await.map(drop)
}

/// Waits until `attempt` has made steps.
async fn makes_steps(ns: &TestNamespace, attempt: i64) -> Result<()> {
    wait_for(
        &format!("steps of attempt {attempt}"),
        Duration::from_secs(120),
        async || {
            let status = ns
                .api::<VLFineTune>()
                .get("observed")
                .await?
                .status
                .unwrap_or_default();
            let steps = status.progress.as_ref().map_or(0, |progress| progress.step);
            ensure!(
                status.attempt <= attempt,
                "attempt {} already: {:?}",
                status.attempt,
                status.attempts
            );
            Ok((status.attempt == attempt && steps >= 10).then_some(()))
        },
    )
    .await
}

async fn kill_trainer(ns: &TestNamespace) -> Result<()> {
    let pods = ns.api::<Pod>();
    let selector = format!(
        "{}={},{}=observed",
        label::ROLE,
        label::ROLE_TRAINER,
        label::FINETUNE
    );
    let found = pods.list(&ListParams::default().labels(&selector)).await?;
    let pod = found.items.first().context("the run has no pod")?;
    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
        .await?;
    Ok(())
}

/// Labels as a PodMonitor leaves them: ours are not renamed, and the pod's are there.
fn series_are_labelled(prometheus: &Prometheus, ns: &TestNamespace) -> Result<()> {
    let wanted = json!({
        "finetune": "observed", "finetune_namespace": ns.name, "attempt": "1", "rank": "0",
        "namespace": ns.name, "job": "trainers",
    });
    let samples = until_data(prometheus, "vlft_trainer_step", Duration::from_secs(15))?;
    let labels = &samples[0]["metric"];
    for (name, value) in wanted.as_object().into_iter().flatten() {
        ensure!(
            labels[name] == *value,
            "label {name} is not {value}: {labels}"
        );
    }
    ensure!(
        !labels.to_string().contains("exported_"),
        "a label was renamed: {labels}"
    );
    Ok(())
}

fn until_data(prometheus: &Prometheus, expression: &str, timeout: Duration) -> Result<Vec<Value>> {
    let deadline = Instant::now() + timeout;
    loop {
        let samples = prometheus.query(expression)?;
        if !samples.is_empty() {
            return Ok(samples);
        }
        if Instant::now() > deadline {
            bail!(
                "no data for {expression}; Prometheus says:\n{}",
                prometheus.log()
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Every panel, and every series that an alert looks at.
fn all_return_data(prometheus: &Prometheus) -> Result<()> {
    let mut left: Vec<Query> = panel_queries()?;
    for alert in alert_queries()? {
        let place = &alert.place;
        let series = series_names(&alert.expression).into_iter();
        left.extend(series.map(|expression| Query {
            place: place.clone(),
            expression,
        }));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while !left.is_empty() && Instant::now() < deadline {
        let mut empty = Vec::new();
        for query in left {
            if !has_data(prometheus, &query)? {
                empty.push(query);
            }
        }
        left = empty;
        std::thread::sleep(Duration::from_secs(1));
    }
    let list: Vec<_> = left
        .iter()
        .map(|query| format!("{}: {}", query.place, query.expression))
        .collect();
    ensure!(
        list.is_empty(),
        "queries without data:\n{}",
        list.join("\n")
    );
    Ok(())
}

/// Samples that are numbers: 0/0 draws nothing.
fn has_data(prometheus: &Prometheus, query: &Query) -> Result<bool> {
    let samples = prometheus
        .query(&with_everything_selected(&query.expression))
        .with_context(|| query.place.clone())?;
    Ok(samples.iter().any(|sample| sample["value"][1] != "NaN"))
}

/// A rule that cannot be evaluated would never fire.
fn alerts_are_evaluated(prometheus: &Prometheus) -> Result<()> {
    let evaluated = until_data(
        prometheus,
        "sum(prometheus_rule_evaluations_total) > 0",
        Duration::from_secs(15),
    );
    evaluated?;
    let failures = prometheus.query("sum(prometheus_rule_evaluation_failures_total) > 0")?;
    ensure!(
        failures.is_empty(),
        "alerts cannot be evaluated:\n{}",
        prometheus.log()
    );
    Ok(())
}
