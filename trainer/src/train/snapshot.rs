//! Model and optimizer to and from a checkpoint's files.

use std::collections::BTreeSet;
use std::path::Path;

use tch::Tensor;

use crate::checkpoint::{
    Checkpoint, Content, FileEntry, TensorParts, Trained, file_entry, write_tensors,
};
use crate::engine::{FlatBuffer, ParameterStore};
use crate::error::{Error, Result};
use crate::optim::AdamW;

/// How many names an error lists.
const LISTED: usize = 20;

/// This process's part of weights and optimizer state, copied to host memory: training goes on
/// while it is written.
pub(super) struct Snapshot {
    weights: Vec<(String, Tensor)>,
    optimizer: Vec<(String, Tensor)>,
}

impl Snapshot {
    pub fn take(buffers: &[FlatBuffer], optimizer: &AdamW) -> Result<Self> {
        let mut weights = Vec::new();
        for buffer in buffers {
            for span in &buffer.spans {
                if let Some(piece) = buffer.piece(span, &buffer.weights)? {
                    weights.push((span.name.clone(), host_copy(&piece)?));
                }
            }
        }
        let state = optimizer.named_state(buffers)?.into_iter();
        let optimizer = state
            .map(|part| Ok((part.name, host_copy(&part.tensor)?)))
            .collect::<Result<_>>()?;
        Ok(Self { weights, optimizer })
    }

    /// Writes part `index` of `count` into a checkpoint's folder, flushed to the disk.
    pub fn write(&self, folder: &Path, (index, count): (i64, i64)) -> Result<Vec<FileEntry>> {
        let contents = [
            (Content::Weights, &self.weights),
            (Content::Optimizer, &self.optimizer),
        ];
        let mut files = Vec::new();
        for (content, tensors) in contents {
            let path = folder.join(content.file_name(index, count));
            let named = tensors.iter().map(|(name, t)| (name.as_str(), t));
            write_tensors(&path, named)?;
            files.push(file_entry(&path)?);
        }
        Ok(files)
    }
}

fn host_copy(tensor: &Tensor) -> Result<Tensor> {
    Ok(match tensor.device() {
        tch::Device::Cpu => tensor.f_detach_copy()?,
        _ => tensor.f_detach()?.f_to_device(tch::Device::Cpu)?,
    })
}

/// Copies a checkpoint's weights and optimizer state in.
pub(super) fn restore(
    checkpoint: &Checkpoint,
    buffers: &mut [FlatBuffer],
    optimizer: &mut AdamW,
) -> Result<()> {
    load_weights(&checkpoint.folder, buffers)?;
    let state = TensorParts::open(&checkpoint.folder, Content::Optimizer)?;
    optimizer.load_named(buffers, &|name| state.tensor(name))
}

/// Copies this process's part of a checkpoint's trainable weights in, whatever number of ranks
/// wrote them; names and shapes must be exactly those here.
pub fn load_weights(folder: &Path, buffers: &mut [FlatBuffer]) -> Result<()> {
    let saved = TensorParts::open(folder, Content::Weights)?;
    check_names(&saved, buffers, folder)?;
    for buffer in buffers {
        for span in &buffer.spans {
            // Its pieces are joined for those that we need only.
            if buffer.piece(span, &buffer.weights)?.is_some() {
                let value = saved
                    .shaped(&span.name, &span.shape)
                    .map_err(|error| error.within(&folder.display().to_string()))?;
                buffer.copy_in(span, &buffer.weights, &value)?;
            }
        }
    }
    Ok(())
}

/// The trainable parameters of a store in which nothing is sharded; shares memory.
pub fn trained(store: &ParameterStore) -> Result<Trained> {
    let named = store.named_trainable()?.into_iter();
    Ok(named.map(|(name, t)| (name.to_owned(), t)).collect())
}

/// As [`trained`], of a sharded store: from the checkpoint that its ranks have just made. Mapped
/// but for what the slices cut.
pub(super) fn trained_of(folder: &Path, store: &ParameterStore) -> Result<Trained> {
    let saved = TensorParts::open(folder, Content::Weights)?;
    let spans = store.buffers().iter().flat_map(|buffer| &buffer.spans);
    spans
        .map(|span| Ok((span.name.clone(), saved.shaped(&span.name, &span.shape)?)))
        .collect()
}

fn check_names(file: &TensorParts, buffers: &[FlatBuffer], folder: &Path) -> Result<()> {
    let saved: BTreeSet<String> = file.names().map(str::to_owned).collect();
    let spans = buffers.iter().flat_map(|buffer| &buffer.spans);
    let here: BTreeSet<String> = spans.map(|span| span.name.clone()).collect();
    if saved == here {
        return Ok(());
    }
    let list = |names: Vec<&String>| {
        let shown: Vec<_> = names
            .iter()
            .take(LISTED)
            .map(|name| name.as_str())
            .collect();
        let more = names.len().saturating_sub(LISTED);
        match more {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    };
    Err(Error::User(format!(
        "{} does not fit this model and method; resume with those of the checkpoint, or use \
         another output folder (only in the checkpoint: [{}]; only in the model: [{}])",
        folder.display(),
        list(saved.difference(&here).collect()),
        list(here.difference(&saved).collect())
    )))
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;
    use crate::engine::{GroupKey, Span, Tower};
    use crate::optim::AdamWSettings;

    fn buffer(names: &[&str]) -> Vec<FlatBuffer> {
        // 64-byte aligned spans of two float32 each.
        let spans: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(i, name)| Span {
                name: (*name).to_owned(),
                shape: vec![2],
                offset: 16 * i as i64,
            })
            .collect();
        let weights = Tensor::rand([16 * names.len() as i64], (Kind::Float, tch::Device::Cpu));
        let key = GroupKey {
            dtype: Kind::Float,
            tower: Tower::Language,
            decay: true,
        };
        vec![FlatBuffer::alone(key, spans, weights)]
    }

    fn optimizer(buffers: &[FlatBuffer]) -> AdamW {
        let settings = AdamWSettings {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
        };
        AdamW::new(buffers, settings).unwrap()
    }

    #[test]
    fn weights_come_back_by_name_whatever_the_layout() {
        let folder = tempfile::tempdir().unwrap();
        let saved = buffer(&["a", "b", "c"]);
        let snapshot = Snapshot::take(&saved, &optimizer(&saved)).unwrap();
        snapshot.write(folder.path(), (0, 1)).unwrap();
        let mut other = buffer(&["c", "a", "b"]);
        load_weights(folder.path(), &mut other).unwrap();
        for span in &saved[0].spans {
            let same = other[0].spans.iter().find(|s| s.name == span.name).unwrap();
            let (saved, loaded) = (span.view(&saved[0].weights), same.view(&other[0].weights));
            assert_eq!(saved.unwrap(), loaded.unwrap());
        }
    }

    #[test]
    fn names_that_do_not_match_are_listed_on_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let saved = buffer(&["a", "b"]);
        let snapshot = Snapshot::take(&saved, &optimizer(&saved)).unwrap();
        snapshot.write(folder.path(), (0, 1)).unwrap();
        let error = load_weights(folder.path(), &mut buffer(&["b", "z"])).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::User(_)));
        assert!(message.contains("only in the checkpoint: [a]"), "{message}");
        assert!(message.contains("only in the model: [z]"), "{message}");
    }
}
