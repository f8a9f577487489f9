//! Model and optimizer to and from a checkpoint's files.

use std::collections::BTreeSet;
use std::path::Path;

use crate::checkpoint::{Checkpoint, OPTIMIZER_FILE, TensorFile, WEIGHTS_FILE, write_tensors};
use crate::engine::FlatBuffer;
use crate::error::{Error, Result};
use crate::optim::AdamW;

/// How many names an error lists.
const LISTED: usize = 20;

/// Writes trainable weights and optimizer state into a folder, under checkpoint names.
pub(super) fn write(folder: &Path, buffers: &[FlatBuffer], optimizer: &AdamW) -> Result<()> {
    let mut weights = Vec::new();
    for buffer in buffers {
        for span in &buffer.spans {
            weights.push((span.name.as_str(), span.view(&buffer.weights)?));
        }
    }
    let named = weights.iter().map(|(name, tensor)| (*name, tensor));
    write_tensors(&folder.join(WEIGHTS_FILE), named)?;
    let state = optimizer.named_state(buffers)?;
    let named = state.iter().map(|part| (part.name.as_str(), &part.tensor));
    write_tensors(&folder.join(OPTIMIZER_FILE), named)
}

/// Copies a checkpoint's weights and optimizer state in.
pub(super) fn restore(
    checkpoint: &Checkpoint,
    buffers: &mut [FlatBuffer],
    optimizer: &mut AdamW,
) -> Result<()> {
    load_weights(&checkpoint.folder, buffers)?;
    let state = TensorFile::open(&checkpoint.folder.join(OPTIMIZER_FILE))?;
    optimizer.load_named(buffers, &|name| state.tensor(name))
}

/// Copies a checkpoint's trainable weights in; names and shapes must be exactly those here.
pub fn load_weights(folder: &Path, buffers: &mut [FlatBuffer]) -> Result<()> {
    let file = TensorFile::open(&folder.join(WEIGHTS_FILE))?;
    check_names(&file, buffers, folder)?;
    for buffer in buffers {
        for span in &buffer.spans {
            let saved = file.tensor(&span.name)?;
            if saved.size() != span.shape {
                return Err(Error::User(format!(
                    "{}: `{}` has shape {:?} but the model has {:?}; resume with the model and \
                     method of the checkpoint",
                    folder.display(),
                    span.name,
                    saved.size(),
                    span.shape
                )));
            }
            let mut view = span.view(&buffer.weights)?;
            tch::no_grad(|| view.f_copy_(&saved))?;
        }
    }
    Ok(())
}

fn check_names(file: &TensorFile, buffers: &[FlatBuffer], folder: &Path) -> Result<()> {
    let saved: BTreeSet<String> = file.names().into_iter().collect();
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
        "{} does not fit this model and method: only in the checkpoint: [{}]; only in the model: \
         [{}]; resume with the model and method of the checkpoint, or use another output folder",
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
        write(folder.path(), &saved, &optimizer(&saved)).unwrap();
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
        write(folder.path(), &saved, &optimizer(&saved)).unwrap();
        let error = load_weights(folder.path(), &mut buffer(&["b", "z"])).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::User(_)));
        assert!(message.contains("only in the checkpoint: [a]"), "{message}");
        assert!(message.contains("only in the model: [z]"), "{message}");
    }
}
