//! Helpers for tests against a real cluster.

pub mod chart;
pub mod dashboards;
