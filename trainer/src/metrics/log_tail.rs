//! The end of the log, kept for the termination report.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use vlft_crds::status::MAX_LOG_TAIL_BYTES;

/// Writes to stderr and remembers the last bytes; clones share them.
#[derive(Debug, Clone, Default)]
pub struct LogTail(Arc<Mutex<Vec<u8>>>);

impl LogTail {
    /// Whole lines of the log's end, at most [`MAX_LOG_TAIL_BYTES`].
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = bytes.len().saturating_sub(MAX_LOG_TAIL_BYTES);
        let end = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned();
        match end.split_once('\n') {
            Some((_cut, lines)) if start > 0 => lines.to_owned(),
            _ => end,
        }
    }

    fn remember(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        // Twice the length, so that old bytes are moved away once in a while only.
        if kept.len() > 2 * MAX_LOG_TAIL_BYTES {
            let old = kept.len() - MAX_LOG_TAIL_BYTES;
            kept.drain(..old);
        }
    }
}

impl Write for LogTail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.remember(bytes);
        std::io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_whole_lines_of_the_end() {
        let tail = LogTail::default();
        tail.remember(b"short\n");
        assert_eq!(tail.text(), "short\n");
        for line in 0..1000 {
            tail.remember(format!("line é {line}\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= MAX_LOG_TAIL_BYTES);
        assert!(text.starts_with("line é "), "{}", &text[..20]);
        assert!(text.ends_with("line é 999\n"));
    }
}
