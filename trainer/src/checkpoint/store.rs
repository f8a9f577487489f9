//! The checkpoints of one run on a volume.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use vlft_crds::contract::CHECKPOINTS_FOLDER;

use super::{Entry, Fence, FileEntry, MANIFEST_FILE, Manifest, Retention, digest, durable, fence};
use crate::error::{Error, Result};

const FOLDER_PREFIX: &str = "step-";
/// Folders with this prefix are being written or deleted; whoever holds the fence may remove them.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub folder: PathBuf,
    pub manifest: Manifest,
    /// sha256 of the manifest's bytes.
    pub digest: String,
}

/// What [`Store::publish`] made.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    pub checkpoint: Checkpoint,
    /// Checkpoints that retention removed.
    pub removed: Vec<PathBuf>,
}

/// Writes checkpoints; holds the run's fence.
#[derive(Debug)]
pub struct Store {
    run: PathBuf,
    fence: Fence,
    attempt: i64,
    retention: Retention,
}

impl Store {
    /// Opens a run's folder for writing, making it if need be: takes the fence and clears what
    /// unfinished writers left.
    pub fn open(run: &Path, attempt: i64, retention: Retention) -> Result<Self> {
        let folder = run.join(CHECKPOINTS_FOLDER);
        std::fs::create_dir_all(&folder)
            .map_err(|cause| Error::storage("create", &folder, &cause))?;
        let found = complete(run)?.into_iter().map(|c| c.digest).collect();
        let fence = Fence::take(run, attempt, found)?;
        clear_temporaries(&folder)?;
        Ok(Self {
            run: run.to_owned(),
            fence,
            attempt,
            retention,
        })
    }

    /// The run's folder.
    pub fn run_folder(&self) -> &Path {
        &self.run
    }

    /// Fails with Drained once a later attempt has taken over.
    pub fn check_fence(&self) -> Result<()> {
        self.fence.check()
    }

    /// Begins a checkpoint: makes the empty temporary folder that writers fill.
    pub fn begin(&self, step: u64) -> Result<PathBuf> {
        let temporary = temporary_folder(&self.run, step);
        remove(&temporary)?;
        std::fs::create_dir(&temporary)
            .map_err(|cause| Error::storage("create", &temporary, &cause))?;
        Ok(temporary)
    }

    /// Publishes what was written since [`Self::begin`]: manifest, flush, fence and rename. On any
    /// failure nothing is published and the folder is removed. `manifest` comes with step, cursor,
    /// state, plan and environment; the rest is filled in.
    pub fn publish(&self, mut manifest: Manifest, files: Vec<FileEntry>) -> Result<Published> {
        let temporary = temporary_folder(&self.run, manifest.step);
        let checkpoint = self
            .seal(&temporary, &mut manifest, files)
            .and_then(|digest| {
                let folder = checkpoint_folder(&self.run, manifest.step);
                self.fence.check()?;
                // Only a torn or superseded checkpoint can be in the way.
                set_aside(&folder)?;
                durable::rename(&temporary, &folder)?;
                Ok(Checkpoint {
                    folder,
                    manifest,
                    digest,
                })
            })
            .inspect_err(|_| self.abandon(&temporary))?;
        let removed = self.prune()?;
        Ok(Published {
            checkpoint,
            removed,
        })
    }

    /// Removes a checkpoint that is not to be. What is left of it is of no use to anybody, and
    /// the error to tell is an earlier one.
    pub fn abandon(&self, temporary: &Path) {
        let _ = std::fs::remove_dir_all(temporary);
    }

    /// Writes the manifest, last; returns its digest.
    fn seal(
        &self,
        temporary: &Path,
        manifest: &mut Manifest,
        files: Vec<FileEntry>,
    ) -> Result<String> {
        manifest.attempt = self.attempt;
        manifest.time = jiff::Timestamp::now().to_string();
        manifest.files = files;
        manifest.files.sort_by(|a, b| a.name.cmp(&b.name));
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|cause| Error::Bug(format!("manifest: {cause}")))?;
        durable::write(&temporary.join(MANIFEST_FILE), &json)?;
        durable::sync(temporary)?;
        Ok(digest::of_bytes(&json))
    }

    /// Removes what retention no longer asks for, the oldest first.
    fn prune(&self) -> Result<Vec<PathBuf>> {
        let all = complete(&self.run)?;
        let entries: Vec<_> = all.iter().map(entry_of).collect();
        let deletable: HashSet<u64> = self.retention.deletable(&entries).into_iter().collect();
        let mut removed = Vec::new();
        for checkpoint in all {
            if deletable.contains(&checkpoint.manifest.step) {
                set_aside(&checkpoint.folder)?;
                removed.push(checkpoint.folder);
            }
        }
        Ok(removed)
    }
}

/// The newest checkpoint of a run whose digests verify; each torn one on the way is handed to
/// `warn` and skipped.
pub fn newest_complete(run: &Path, warn: &mut dyn FnMut(String)) -> Result<Option<Checkpoint>> {
    for checkpoint in complete(run)?.into_iter().rev() {
        match checkpoint.manifest.verify(&checkpoint.folder) {
            Ok(()) => return Ok(Some(checkpoint)),
            Err(error) => warn(format!(
                "checkpoint {} is torn and skipped: {error}",
                checkpoint.folder.display()
            )),
        }
    }
    Ok(None)
}

/// All checkpoints with a manifest that counts, by step; files are not verified.
fn complete(run: &Path) -> Result<Vec<Checkpoint>> {
    let mut found = Vec::new();
    for folder in subfolders(&run.join(CHECKPOINTS_FOLDER))? {
        let is_checkpoint = file_name(&folder).starts_with(FOLDER_PREFIX);
        if !is_checkpoint || !folder.join(MANIFEST_FILE).is_file() {
            continue;
        }
        match Manifest::read(&folder) {
            Ok((manifest, digest)) if fence::counts(run, &manifest, &digest)? => {
                found.push(Checkpoint {
                    folder,
                    manifest,
                    digest,
                });
            }
            Ok(_) => tracing::warn!(
                folder = %folder.display(),
                "checkpoint of a superseded attempt is skipped"
            ),
            Err(Error::Storage(message)) => tracing::warn!("torn checkpoint skipped: {message}"),
            Err(other) => return Err(other),
        }
    }
    found.sort_by_key(|checkpoint| checkpoint.manifest.step);
    Ok(found)
}

fn entry_of(checkpoint: &Checkpoint) -> Entry {
    let loss = checkpoint.manifest.state.get("validationLoss");
    Entry {
        step: checkpoint.manifest.step,
        validation_loss: loss.and_then(serde_json::Value::as_f64),
    }
}

/// Where a published checkpoint is.
pub fn checkpoint_folder(run: &Path, step: u64) -> PathBuf {
    run.join(CHECKPOINTS_FOLDER).join(folder_name(step))
}

fn folder_name(step: u64) -> String {
    format!("{FOLDER_PREFIX}{step:08}")
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::storage("list", folder, &cause)),
    };
    let paths: std::io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|cause| Error::storage("list", folder, &cause))?;
    paths.sort();
    Ok(paths)
}

/// Flushes a file that was written into a checkpoint's folder, and takes its digest.
pub fn file_entry(path: &Path) -> Result<FileEntry> {
    durable::sync(path)?;
    let (sha256, bytes) =
        digest::of_file(path).map_err(|cause| Error::storage("read back", path, &cause))?;
    Ok(FileEntry {
        name: file_name(path),
        bytes,
        sha256,
    })
}

/// Where a checkpoint is while it is written; the same on every process of a run.
pub fn temporary_folder(run: &Path, step: u64) -> PathBuf {
    let name = format!("{TEMPORARY_PREFIX}{}", folder_name(step));
    run.join(CHECKPOINTS_FOLDER).join(name)
}

/// Takes a folder's name away at once, so that nobody sees it half deleted, then removes it.
fn set_aside(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let aside = folder.with_file_name(format!("{TEMPORARY_PREFIX}old-{}", file_name(folder)));
    remove(&aside)?;
    durable::rename(folder, &aside)?;
    remove(&aside)
}

fn clear_temporaries(folder: &Path) -> Result<()> {
    for path in subfolders(folder)? {
        if file_name(&path).starts_with(TEMPORARY_PREFIX) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::storage("remove", folder, &cause))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
