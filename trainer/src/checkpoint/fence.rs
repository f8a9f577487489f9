//! The fence on a run's folder: no two writers.
//!
//! An attempt that starts writes its number, and which complete checkpoints it found. From then
//! on a trainer of an earlier attempt (cut off on a lost node, say) that checks the fence stops;
//! and a checkpoint that it published between check and rename counts for nobody, because it is
//! neither of the fence's attempt nor among those found.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable;
use super::manifest::Manifest;
use crate::error::{Error, Result};

const FENCE_FILE: &str = "fence.json";

/// A taken fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    attempt: i64,
    /// Tells two executions of one attempt apart: a Job that was suspended runs again.
    execution: String,
    /// Digests of the manifests that were complete when this execution began.
    found: Vec<String>,
}

impl Fence {
    /// Takes the fence of a run's folder for `attempt`; `found` are the manifest digests of its
    /// complete checkpoints. Drained if a later attempt holds it already.
    pub(super) fn take(run: &Path, attempt: i64, found: Vec<String>) -> Result<Self> {
        let path = run.join(FENCE_FILE);
        if let Some(held) = read(&path)?
            && held.attempt > attempt
        {
            return Err(superseded(attempt, held.attempt));
        }
        let content = Content {
            attempt,
            execution: execution_id(),
            found,
        };
        let json = serde_json::to_vec_pretty(&content)
            .map_err(|cause| Error::Bug(format!("fence: {cause}")))?;
        durable::replace(&path, &json)?;
        Ok(Self { path, content })
    }

    /// Fails with Drained once another execution has taken the fence.
    pub(super) fn check(&self) -> Result<()> {
        match read(&self.path)? {
            Some(held) if held == self.content => Ok(()),
            Some(held) => Err(superseded(self.content.attempt, held.attempt)),
            None => Err(Error::Storage(format!(
                "{} is gone: the run's folder was emptied while it was in use",
                self.path.display()
            ))),
        }
    }
}

/// Whether a manifest counts: no fence yet, or it is of the fence's attempt, or was found then.
pub(super) fn counts(run: &Path, manifest: &Manifest, digest: &str) -> Result<bool> {
    let Some(held) = read(&run.join(FENCE_FILE))? else {
        return Ok(true);
    };
    Ok(manifest.attempt == held.attempt || held.found.iter().any(|found| found == digest))
}

fn superseded(own: i64, holder: i64) -> Error {
    Error::Drained(format!(
        "attempt {holder} has taken over this run's folder; attempt {own} publishes nothing more"
    ))
}

fn read(path: &Path) -> Result<Option<Content>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::storage("read", path, &cause)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|cause| {
        Error::Storage(format!(
            "{}: not a fence ({cause}); delete it if no trainer uses this run's folder",
            path.display()
        ))
    })
}

/// Unique on one machine and, for all practical purposes, among those that share a volume.
fn execution_id() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:x}-{:x}", now.as_nanos(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_attempt_stops_the_earlier_one_and_not_the_reverse() {
        let run = tempfile::tempdir().unwrap();
        let first = Fence::take(run.path(), 1, Vec::new()).unwrap();
        first.check().unwrap();
        let second = Fence::take(run.path(), 2, Vec::new()).unwrap();
        let error = first.check().unwrap_err();
        assert!(
            matches!(&error, Error::Drained(m) if m.contains("attempt 2")),
            "{error}"
        );
        second.check().unwrap();
        assert!(matches!(
            Fence::take(run.path(), 1, Vec::new()),
            Err(Error::Drained(_))
        ));
        second.check().unwrap();
    }

    #[test]
    fn a_second_execution_of_the_same_attempt_stops_the_first() {
        let run = tempfile::tempdir().unwrap();
        let first = Fence::take(run.path(), 1, Vec::new()).unwrap();
        let again = Fence::take(run.path(), 1, Vec::new()).unwrap();
        assert!(first.check().is_err());
        again.check().unwrap();
    }

    #[test]
    fn what_an_earlier_attempt_published_too_late_does_not_count() {
        let run = tempfile::tempdir().unwrap();
        let manifest = |attempt| Manifest {
            attempt,
            ..Manifest::default()
        };
        assert!(counts(run.path(), &manifest(1), "early").unwrap());
        Fence::take(run.path(), 2, vec!["early".into()]).unwrap();
        assert!(counts(run.path(), &manifest(1), "early").unwrap());
        assert!(!counts(run.path(), &manifest(1), "late").unwrap());
        assert!(counts(run.path(), &manifest(2), "own").unwrap());
    }

    #[test]
    fn a_fence_that_is_no_json_is_a_storage_error_with_a_remedy() {
        let run = tempfile::tempdir().unwrap();
        std::fs::write(run.path().join(FENCE_FILE), "{").unwrap();
        let error = Fence::take(run.path(), 1, Vec::new()).unwrap_err();
        assert!(error.to_string().contains("delete it"), "{error}");
    }
}
