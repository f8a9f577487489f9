//! Helpers for tests against a real cluster.
