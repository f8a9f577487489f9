//! Dashboards and alerts without a cluster: they name metrics that exist, all of them, and each
//! alert fires on what it is for.

use std::collections::BTreeSet;
use std::process::Command;

use integration::chart::{folder, root, run};
use integration::dashboards::{alert_queries, metric_of, panel_queries, series_names};
use vlft_crds::metric_names::{operator, trainer};

fn known() -> BTreeSet<&'static str> {
    trainer::ALL
        .iter()
        .chain(operator::ALL)
        .map(|metric| metric.name)
        .collect()
}

#[test]
fn queries_name_only_metrics_that_exist() {
    let known = known();
    for query in panel_queries()
        .unwrap()
        .into_iter()
        .chain(alert_queries().unwrap())
    {
        let names = series_names(&query.expression);
        assert!(
            !names.is_empty(),
            "{}: no metric of ours in {}",
            query.place,
            query.expression
        );
        for name in names {
            assert!(
                known.contains(metric_of(&name)),
                "{}: {name} does not exist",
                query.place
            );
        }
    }
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let shown: BTreeSet<String> = panel_queries()
        .unwrap()
        .iter()
        .flat_map(|query| series_names(&query.expression))
        .map(|series| metric_of(&series).to_owned())
        .collect();
    let missing: Vec<_> = known()
        .into_iter()
        .filter(|name| !shown.contains(*name))
        .collect();
    assert!(missing.is_empty(), "on no dashboard: {missing:?}");
}

#[test]
fn the_recorded_exposition_holds_the_gpu_metrics() {
    let text = std::fs::read_to_string(root().join("tests/monitoring/gpu.prom")).unwrap();
    let recorded: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('{').map(|(name, _)| name))
        .collect();
    let gpu = known()
        .into_iter()
        .filter(|name| name.starts_with("vlft_trainer_gpu_"))
        .collect();
    assert_eq!(recorded, gpu);
    for metric in trainer::ALL
        .iter()
        .filter(|metric| recorded.contains(metric.name))
    {
        let help = format!("# HELP {} {}\n", metric.name, metric.help);
        assert!(text.contains(&help), "not in gpu.prom: {help}");
    }
}

#[test]
fn alerts_fire_on_what_they_are_for() {
    run(Command::new("promtool")
        .args(["check", "rules"])
        .arg(folder().join("alerts/vlfinetune.yaml")))
    .unwrap();
    run(Command::new("promtool")
        .args(["test", "rules"])
        .arg(root().join("tests/monitoring/alerts_test.yaml")))
    .unwrap();
}

#[test]
fn every_alert_has_a_test() {
    let tests = std::fs::read_to_string(root().join("tests/monitoring/alerts_test.yaml")).unwrap();
    for query in alert_queries().unwrap() {
        let name = query.place.trim_start_matches("alert ");
        let fires = format!("- alertname: {name}\n");
        assert!(tests.contains(&fires), "no test shows that {name} fires");
    }
}
