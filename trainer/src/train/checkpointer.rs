//! Checkpoints that are written while training goes on.
//!
//! At the step itself only a copy is made. A thread writes it, flushes it and takes its digests;
//! once all ranks are through with that, the first one publishes: manifest, fence, rename.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::snapshot::Snapshot;
use crate::checkpoint::{
    Checkpoint, FileEntry, Manifest, Store, checkpoint_folder, temporary_folder,
};
use crate::error::{Error, Result};
use crate::parallel::{Comm, Rank};

/// Makes a run's checkpoints, one at a time. Every rank makes the same calls.
pub(super) struct Checkpointer {
    run: PathBuf,
    /// Of the first rank, which alone publishes.
    store: Option<Store>,
    comm: Comm,
    /// Whether each rank has a part of its own to write.
    sharded: bool,
    writing: Option<Writing>,
    last_step: Option<u64>,
    last_folder: Option<PathBuf>,
}

/// A checkpoint under way.
struct Writing {
    manifest: Manifest,
    /// Absent on a rank that has nothing to write.
    thread: Option<JoinHandle<Result<Vec<FileEntry>>>>,
    begun: Instant,
    stalled: Duration,
}

/// A published checkpoint.
#[derive(Debug)]
pub(super) struct Made {
    pub checkpoint: Checkpoint,
    /// How long training stood still for it.
    pub stalled: Duration,
    /// From its step until it was published.
    pub took: Duration,
}

impl Checkpointer {
    /// `last` is the checkpoint from which the run continues: its step and folder.
    pub fn new(
        run: &Path,
        store: Option<Store>,
        comm: Comm,
        sharded: bool,
        last: Option<(u64, PathBuf)>,
    ) -> Self {
        let (last_step, last_folder) = last.unzip();
        Self {
            run: run.to_owned(),
            store,
            comm,
            sharded,
            writing: None,
            last_step,
            last_folder,
        }
    }

    /// Where the newest published checkpoint is.
    pub fn last_folder(&self) -> Option<&Path> {
        self.last_folder.as_deref()
    }

    /// The step of the newest checkpoint, begun or published.
    pub fn last_step(&self) -> Option<u64> {
        self.last_step
    }

    /// Fails with Drained if a later attempt has taken over the run's folder.
    pub fn check_fence(&self) -> Result<()> {
        self.store.as_ref().map_or(Ok(()), Store::check_fence)
    }

    /// Whether this rank's part of a checkpoint is still being written.
    pub fn is_writing(&self) -> bool {
        let thread = self.writing.as_ref().and_then(|w| w.thread.as_ref());
        thread.is_some_and(|thread| !thread.is_finished())
    }

    /// Begins a checkpoint; the one before must be finished.
    pub fn begin(
        &mut self,
        manifest: Manifest,
        take: impl FnOnce() -> Result<Snapshot>,
    ) -> Result<()> {
        let begun = Instant::now();
        let step = manifest.step;
        if let Some(store) = &self.store {
            store.begin(step)?;
        }
        let Rank {
            rank, world_size, ..
        } = self.comm.rank();
        let part = match self.sharded {
            true => {
                // The folder is there before anybody writes.
                self.comm.barrier()?;
                Some((rank, world_size))
            }
            false => self.store.is_some().then_some((0, 1)),
        };
        let thread = part.map(|part| {
            let snapshot = take()?;
            let folder = temporary_folder(&self.run, step);
            let write = move || snapshot.write(&folder, part);
            let named = std::thread::Builder::new().name("checkpoint".into());
            let started = named.spawn(write);
            started.map_err(|cause| Error::Bug(format!("checkpoint thread: {cause}")))
        });
        self.writing = Some(Writing {
            manifest,
            thread: thread.transpose()?,
            begun,
            stalled: begun.elapsed(),
        });
        self.last_step = Some(step);
        Ok(())
    }

    /// Waits for all ranks' parts and publishes them. `None` if nothing was begun, and on every
    /// rank but the first.
    pub fn finish(&mut self) -> Result<Option<Made>> {
        let Some(writing) = self.writing.take() else {
            return Ok(None);
        };
        let waited = Instant::now();
        let step = writing.manifest.step;
        let published = self.publish(writing.manifest, writing.thread);
        if let (Err(_), Some(store)) = (&published, &self.store) {
            store.abandon(&temporary_folder(&self.run, step));
        }
        let published = published?;
        // A rank that leaves may be sure that the checkpoint is there.
        self.comm.barrier()?;
        self.last_folder = Some(checkpoint_folder(&self.run, step));
        Ok(published.map(|checkpoint| Made {
            checkpoint,
            stalled: writing.stalled + waited.elapsed(),
            took: writing.begun.elapsed(),
        }))
    }

    fn publish(
        &self,
        manifest: Manifest,
        thread: Option<JoinHandle<Result<Vec<FileEntry>>>>,
    ) -> Result<Option<Checkpoint>> {
        let ended = thread.map(JoinHandle::join).transpose();
        let own = ended.map_err(|_| Error::Bug("the checkpoint thread panicked".into()))?;
        let own = own.transpose()?.unwrap_or_default();
        let files = match self.sharded {
            true => self.files_of_all(&own)?,
            false => own,
        };
        let store = self.store.as_ref();
        let published = store.map(|store| store.publish(manifest, files));
        Ok(published.transpose()?.map(|published| published.checkpoint))
    }

    fn files_of_all(&self, own: &[FileEntry]) -> Result<Vec<FileEntry>> {
        let bug = |cause: serde_json::Error| Error::Bug(format!("file entries: {cause}"));
        let own = serde_json::to_vec(own).map_err(bug)?;
        let mut files = Vec::new();
        for part in self.comm.collect(&own)? {
            files.extend(serde_json::from_slice::<Vec<FileEntry>>(&part).map_err(bug)?);
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::checkpoint::{Retention, newest_complete};
    use crate::engine::{FlatBuffer, GroupKey, Span, Tower};
    use crate::optim::{AdamW, AdamWSettings};

    const KEEP: Retention = Retention {
        keep_last: 2,
        keep_best: false,
        keep_every: None,
    };

    fn manifest(step: u64) -> Manifest {
        Manifest {
            step,
            ..Manifest::default()
        }
    }

    fn buffers() -> Vec<FlatBuffer> {
        let key = GroupKey {
            dtype: Kind::Float,
            tower: Tower::Language,
            decay: true,
        };
        let span = Span {
            name: "w".into(),
            shape: vec![4],
            offset: 0,
        };
        let weights = Tensor::ones([4], (Kind::Float, Device::Cpu));
        vec![FlatBuffer::alone(key, vec![span], weights)]
    }

    fn snapshot(buffers: &[FlatBuffer]) -> Result<Snapshot> {
        let settings = AdamWSettings {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        };
        Snapshot::take(buffers, &AdamW::new(buffers, settings)?)
    }

    #[test]
    fn what_is_trained_meanwhile_is_not_in_it() {
        let run = tempfile::tempdir().unwrap();
        let store = Store::open(run.path(), 1, KEEP).unwrap();
        let mut checkpoints = Checkpointer::new(run.path(), Some(store), Comm::Solo, false, None);
        let mut buffers = buffers();
        checkpoints
            .begin(manifest(3), || snapshot(&buffers))
            .unwrap();
        let _ = buffers[0].weights.zero_();
        let made = checkpoints.finish().unwrap().unwrap();
        assert!(made.stalled <= made.took);
        assert!(checkpoints.finish().unwrap().is_none());
        let found = newest_complete(run.path(), &mut |w| panic!("{w}")).unwrap();
        assert_eq!(found.as_ref(), Some(&made.checkpoint));
        crate::train::load_weights(&made.checkpoint.folder, &mut buffers).unwrap();
        assert_eq!(buffers[0].weights.sum(Kind::Float).double_value(&[]), 4.0);
    }

    #[test]
    fn a_failed_write_leaves_the_last_good_one_and_no_rubbish() {
        let run = tempfile::tempdir().unwrap();
        let store = Store::open(run.path(), 1, KEEP).unwrap();
        let mut checkpoints = Checkpointer::new(run.path(), Some(store), Comm::Solo, false, None);
        let buffers = buffers();
        checkpoints
            .begin(manifest(10), || snapshot(&buffers))
            .unwrap();
        let good = checkpoints.finish().unwrap().unwrap().checkpoint;
        let folder = temporary_folder(run.path(), 20);
        // The kernel's always-full device in place of the file: ENOSPC on write.
        let take = || {
            let file = folder.join("weights.safetensors");
            std::os::unix::fs::symlink("/dev/full", file).unwrap();
            snapshot(&buffers)
        };
        checkpoints.begin(manifest(20), take).unwrap();
        let error = checkpoints.finish().unwrap_err();
        assert!(
            matches!(&error, Error::Storage(m) if m.contains("free space")),
            "{error:?}"
        );
        let found = newest_complete(run.path(), &mut |w| panic!("{w}")).unwrap();
        assert_eq!(found, Some(good));
        assert!(!folder.exists());
    }
}
