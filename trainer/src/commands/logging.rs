//! Logs: readable on a terminal, JSON lines elsewhere; always on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::metrics::LogTail;

/// Starts logging at `RUST_LOG`, else at `info`; returns the kept end of the log.
pub(super) fn init() -> LogTail {
    let tail = LogTail::default();
    let writer = tail.clone();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone());
    // A second call (in a test) finds the first one's subscriber in place, which is as good.
    let _ = if std::io::stderr().is_terminal() {
        logs.without_time().with_target(false).compact().try_init()
    } else {
        logs.json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    };
    tail
}
