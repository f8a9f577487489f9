//! What a checkpoint says about itself.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MANIFEST_FILE, digest};
use crate::batch::Cursor;
use crate::error::{Error, Result};

/// The layout this trainer writes; it refuses others.
pub const FORMAT: u32 = 1;

/// Written last into a checkpoint's folder, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Attempt that wrote it.
    pub attempt: i64,
    /// RFC 3339, UTC.
    pub time: String,
    /// Where the data stream continues. With the seed in `plan`, all random state there is.
    pub cursor: Cursor,
    /// Counters and losses that the run carries on.
    pub state: Value,
    /// What must be equal for a resume to continue bit for bit, beside `environment`.
    pub plan: Value,
    pub environment: Environment,
    pub files: Vec<FileEntry>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            format: FORMAT,
            step: 0,
            attempt: 0,
            time: String::new(),
            cursor: Cursor {
                epoch: 0,
                sample: 0,
            },
            state: Value::Null,
            plan: Value::Null,
            environment: Environment::default(),
            files: Vec::new(),
        }
    }
}

/// The machine's part of the promise of bit-exact resume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    pub trainer: String,
    pub libtorch: String,
    pub world_size: i64,
    pub threads: i64,
    /// Vector instructions of the CPU kernels, for example `AVX2`.
    pub cpu_capability: String,
    /// `CPU` or the GPU's name.
    pub device: String,
}

/// One file of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// Why a resume does not continue bit for bit: `field: saved -> now`. Empty if it does.
pub type Differences = Vec<String>;

impl Manifest {
    /// Reads a checkpoint folder's manifest and the digest of its bytes.
    pub fn read(folder: &Path) -> Result<(Self, String)> {
        let path = folder.join(MANIFEST_FILE);
        let bytes = std::fs::read(&path).map_err(|cause| Error::storage("read", &path, &cause))?;
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|cause| {
            Error::Storage(format!("{}: not a manifest: {cause}", path.display()))
        })?;
        if manifest.format != FORMAT {
            return Err(Error::User(format!(
                "{}: written in format {} by another version; this trainer reads format {FORMAT}",
                path.display(),
                manifest.format
            )));
        }
        Ok((manifest, digest::of_bytes(&bytes)))
    }

    /// Checks every file's length and digest.
    pub fn verify(&self, folder: &Path) -> Result<()> {
        for entry in &self.files {
            let path = folder.join(&entry.name);
            let (sha256, bytes) =
                digest::of_file(&path).map_err(|cause| Error::storage("read", &path, &cause))?;
            if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
                return Err(Error::Storage(format!(
                    "{}: {bytes} bytes with sha256 {sha256}, but the manifest says {} bytes with {}",
                    path.display(),
                    entry.bytes,
                    entry.sha256
                )));
            }
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What a run with this plan and environment would do differently from the saved one.
    pub fn differences(&self, plan: &Value, environment: &Environment) -> Differences {
        let mut found = Vec::new();
        let value = |environment| serde_json::to_value(environment).unwrap_or_default();
        let (saved, now) = (value(&self.environment), value(environment));
        compare("environment", &saved, &now, &mut found);
        compare("plan", &self.plan, plan, &mut found);
        found
    }
}

/// Notes each leaf that differs, with its path.
fn compare(path: &str, saved: &Value, now: &Value, found: &mut Differences) {
    if let (Value::Object(saved), Value::Object(now)) = (saved, now) {
        for (key, saved) in saved {
            let now = now.get(key).unwrap_or(&Value::Null);
            compare(&format!("{path}.{key}"), saved, now, found);
        }
        for (key, now) in now.iter().filter(|(key, _)| !saved.contains_key(*key)) {
            compare(&format!("{path}.{key}"), &Value::Null, now, found);
        }
    } else if saved != now {
        found.push(format!("{path}: {saved} -> {now}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_name_the_field_and_both_values() {
        let manifest = Manifest {
            plan: json!({"training": {"learningRate": 0.1, "seed": 1}, "old": true}),
            environment: Environment {
                threads: 2,
                ..Environment::default()
            },
            ..Manifest::default()
        };
        assert!(
            manifest
                .differences(&manifest.plan, &manifest.environment)
                .is_empty()
        );
        let now = json!({"training": {"learningRate": 0.2, "seed": 1}, "new": 3});
        let found = manifest.differences(&now, &Environment::default());
        assert_eq!(
            found,
            [
                "environment.threads: 2 -> 0",
                "plan.training.learningRate: 0.1 -> 0.2",
                "plan.old: true -> null",
                "plan.new: null -> 3"
            ]
        );
    }

    #[test]
    fn another_format_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest {
            format: 9,
            ..Manifest::default()
        };
        let json = serde_json::to_vec(&manifest).unwrap();
        std::fs::write(folder.path().join(MANIFEST_FILE), json).unwrap();
        let error = Manifest::read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("format 9") && error.contains("format 1"),
            "{error}"
        );
    }
}
