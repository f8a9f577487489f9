//! What a person or a log collector sees of a run: a bar on a terminal, JSON lines elsewhere.

use std::io::{IsTerminal, Write};

use vlft_crds::contract::Progress;

const BAR_CELLS: usize = 24;
/// Back to the first column, and clear the line.
const CLEAR: &str = "\r\x1b[2K";

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// A bar that is redrawn in place.
    Bar,
    /// One log event each time.
    Lines,
    /// Another rank speaks.
    Silent,
}

impl Console {
    /// A bar where stderr is a terminal.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Bar
        } else {
            Self::Lines
        }
    }

    /// Shows a step; `log` says whether it is one of those that get a line of their own.
    pub(super) fn step(self, progress: &Progress, grad_norm: f64, log: bool) {
        match self {
            // A terminal that has gone away is no reason to stop.
            Self::Bar => {
                let _ = write!(std::io::stderr(), "{CLEAR}{}", bar(progress));
            }
            Self::Lines if log => tracing::info!(
                step = progress.step,
                total_steps = progress.total_steps,
                epoch = progress.epoch,
                loss = progress.loss,
                learning_rate = progress.learning_rate,
                grad_norm,
                tokens_per_second = progress.tokens_per_second,
                images_per_second = progress.images_per_second,
                eta_seconds = progress.eta_seconds,
                "step"
            ),
            Self::Lines | Self::Silent => {}
        }
    }

    /// A line of its own, above the bar.
    pub fn message(self, text: &str) {
        match self {
            Self::Bar => {
                let _ = writeln!(std::io::stderr(), "{CLEAR}{text}");
            }
            Self::Lines => tracing::info!("{text}"),
            Self::Silent => {}
        }
    }

    /// Leaves the bar behind.
    pub(super) fn finish(self) {
        if self == Self::Bar {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// `[######..........]  120/600  loss 1.2345  lr 2.00e-3  1234 tokens/s  12.3 images/s  ETA 1:23`
fn bar(progress: &Progress) -> String {
    let total = progress.total_steps.max(1);
    let done = progress.step.clamp(0, total);
    let cells = (BAR_CELLS as i64 * done / total) as usize;
    let mut text = format!(
        "[{}{}] {done:>5}/{total}",
        "#".repeat(cells),
        ".".repeat(BAR_CELLS - cells)
    );
    let mut add = |part: Option<String>| text.extend(part.map(|part| format!("  {part}")));
    add(progress.loss.map(|loss| format!("loss {loss:.4}")));
    add(progress.learning_rate.map(|rate| format!("lr {rate:.2e}")));
    add(progress
        .tokens_per_second
        .map(|rate| format!("{rate:.0} tokens/s")));
    add(progress
        .images_per_second
        .map(|rate| format!("{rate:.1} images/s")));
    add(progress
        .eta_seconds
        .map(|eta| format!("ETA {}", clock(eta))));
    text
}

/// Seconds as `M:SS` or `H:MM:SS`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_what_is_known() {
        let progress = Progress {
            step: 150,
            total_steps: 600,
            loss: Some(1.25),
            tokens_per_second: Some(1234.4),
            eta_seconds: Some(83.0),
            ..Progress::default()
        };
        assert_eq!(
            bar(&progress),
            "[######..................]   150/600  loss 1.2500  1234 tokens/s  ETA 1:23"
        );
        let none = Progress::default();
        assert_eq!(bar(&none), format!("[{}]     0/1", ".".repeat(BAR_CELLS)));
        assert_eq!(clock(3661.9), "1:01:01");
    }
}
