//! The chart's dashboards and alerts as lists of queries.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::chart;

/// A query and where it stands, for messages.
#[derive(Debug, Clone)]
pub struct Query {
    /// `runs.json: Loss`
    pub place: String,
    pub expression: String,
}

/// Every query of every panel.
pub fn panel_queries() -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for file in fs::read_dir(chart::folder().join("dashboards"))? {
        let path = file?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path)?;
        let board: Value = serde_json::from_str(&text).with_context(|| name.clone())?;
        for panel in board["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                queries.push(Query {
                    place: format!("{name}: {}", panel["title"].as_str().unwrap_or_default()),
                    expression: target["expr"].as_str().unwrap_or_default().to_owned(),
                });
            }
        }
    }
    Ok(queries)
}

/// The expression of every alert.
pub fn alert_queries() -> Result<Vec<Query>> {
    let text = fs::read_to_string(chart::folder().join("alerts/vlfinetune.yaml"))?;
    let rules: Value = serde_yaml::from_str(&text)?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    Ok(rules
        .map(|rule| Query {
            place: format!("alert {}", rule["alert"].as_str().unwrap_or_default()),
            expression: rule["expr"].as_str().unwrap_or_default().to_owned(),
        })
        .collect())
}

/// Names of our metrics in a query, as they stand there (`…_bucket`, `…_sum`, `…_count`).
pub fn series_names(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.starts_with("vlft_"))
        .map(str::to_owned)
        .collect()
}

/// The metric a series belongs to: histograms have three kinds of them.
pub fn metric_of(series: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| series.strip_suffix(suffix))
        .unwrap_or(series)
}

/// A panel's query as Grafana would send it with everything selected.
pub fn with_everything_selected(expression: &str) -> String {
    expression
        .replace("$__rate_interval", "1m")
        .replace("$__range", "1h")
        .replace("$namespace", ".*")
        .replace("$finetune", ".*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_in_any_expression() {
        let names = series_names("sum(rate(vlft_a_bucket{x=\"vlft\"}[5m]))/vlft_b_total>1");
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["vlft_a_bucket", "vlft_b_total"]
        );
        assert_eq!(metric_of("vlft_a_bucket"), "vlft_a");
        assert_eq!(metric_of("vlft_b_total"), "vlft_b_total");
    }

    #[test]
    fn no_variable_is_left() {
        for query in panel_queries().unwrap() {
            let sent = with_everything_selected(&query.expression);
            assert!(!sent.contains('$'), "{}: {sent}", query.place);
        }
    }
}
