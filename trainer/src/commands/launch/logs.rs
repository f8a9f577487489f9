//! The output of several processes as one readable log.

use std::io::{BufRead, BufReader, Read, Write};
use std::thread::JoinHandle;

/// Copies a process's output line by line with its rank in front. JSON lines (the log outside a
/// terminal) stay as they are: each says its rank itself.
pub(super) fn copy(rank: i64, from: impl Read + Send + 'static, to: Output) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            // Whoever reads the log may be gone; the training goes on.
            let _ = to.write(&prefixed(rank, &line));
        }
    })
}

/// Where a stream of the children goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    fn write(self, line: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => std::io::stdout().lock().write_all(line),
            Self::Stderr => std::io::stderr().lock().write_all(line),
        }
    }
}

fn prefixed(rank: i64, line: &[u8]) -> Vec<u8> {
    let mut whole = match line.strip_prefix(b"{") {
        Some(rest) => [format!("{{\"rank\":{rank},").as_bytes(), rest].concat(),
        None => [format!("[rank {rank}] ").as_bytes(), line].concat(),
    };
    whole.push(b'\n');
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_says_whose_it_is() {
        assert_eq!(prefixed(3, b"loss 0.5"), b"[rank 3] loss 0.5\n");
        let json: serde_json::Value =
            serde_json::from_slice(&prefixed(1, br#"{"level":"INFO"}"#)).unwrap();
        assert_eq!((&json["rank"], &json["level"]), (&1.into(), &"INFO".into()));
    }
}
