//! What the answers to a labelled file amount to.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};

/// The answer to one record.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Answer {
    /// Position in the file, from 0; blank lines do not count.
    pub index: usize,
    pub ids: Vec<u32>,
    pub text: String,
    pub expected: String,
    /// Whether `text` is `expected`, white space at the ends aside.
    pub exact: bool,
}

/// All answers with their summary.
#[derive(Debug)]
pub(super) struct Report {
    answers: Vec<Answer>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct Summary {
    samples: usize,
    exact: usize,
    /// Share of exact matches, 0 to 1.
    accuracy: f64,
    seconds: f64,
    generated_tokens: usize,
}

impl Answer {
    pub(super) fn new(index: usize, ids: Vec<u32>, text: String, expected: String) -> Self {
        let exact = text.trim() == expected.trim();
        Self {
            index,
            ids,
            text,
            expected,
            exact,
        }
    }
}

impl Report {
    pub(super) fn new(answers: Vec<Answer>, took: Duration) -> Self {
        let exact = answers.iter().filter(|answer| answer.exact).count();
        #[allow(clippy::cast_precision_loss)]
        let accuracy = exact as f64 / answers.len().max(1) as f64;
        let summary = Summary {
            samples: answers.len(),
            exact,
            accuracy,
            seconds: took.as_secs_f64(),
            generated_tokens: answers.iter().map(|answer| answer.ids.len()).sum(),
        };
        Self { answers, summary }
    }

    /// Writes the answers as JSON lines and the summary as JSON, each where asked for.
    pub(super) fn write(&self, answers: Option<&Path>, summary: Option<&Path>) -> Result<()> {
        if let Some(path) = answers {
            let mut lines = String::new();
            for answer in &self.answers {
                lines += &json(answer)?;
                lines.push('\n');
            }
            write(path, &lines)?;
        }
        match summary {
            Some(path) => write(path, &(json(&self.summary)? + "\n")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            samples,
            exact,
            accuracy,
            seconds,
            generated_tokens,
        } = &self.summary;
        let percent = accuracy * 100.0;
        write!(
            f,
            "accuracy {percent:.1} % ({exact} of {samples} exact), {generated_tokens} tokens in \
             {seconds:.1} s"
        )
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Bug(e.to_string()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Error::Storage(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_an_answer_does_not_count() {
        let answers = vec![
            Answer::new(0, vec![1, 2], " a cat\n".into(), "a cat".into()),
            Answer::new(1, vec![3], "a dog".into(), "a cat".into()),
        ];
        let report = Report::new(answers, Duration::from_millis(1500));
        assert_eq!(
            report.to_string(),
            "accuracy 50.0 % (1 of 2 exact), 3 tokens in 1.5 s"
        );
    }

    #[test]
    fn nothing_to_answer_is_no_accuracy() {
        assert_eq!(
            Report::new(Vec::new(), Duration::ZERO).summary.accuracy,
            0.0
        );
    }
}
