//! A checkpoint's tensors over one file, or over one for each rank.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use super::TensorFile;
use crate::error::{Error, Result};

/// What a checkpoint's files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Trainable weights by checkpoint name, in storage kind.
    Weights,
    /// Optimizer state by checkpoint name.
    Optimizer,
}

impl Content {
    fn stem(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Optimizer => "optimizer",
        }
    }

    /// The file of part `index` of `count`.
    pub fn file_name(self, index: i64, count: i64) -> String {
        let stem = self.stem();
        match count {
            ..=1 => format!("{stem}.safetensors"),
            _ => format!("{stem}-{:05}-of-{count:05}.safetensors", index + 1),
        }
    }
}

/// All files of one content, as one set of named tensors.
///
/// A rank's file holds flat pieces of the parameters that its slices cut; in the order of the
/// ranks they are the parameter. So any number of ranks reads what any other number wrote.
#[derive(Debug)]
pub struct TensorParts {
    files: Vec<TensorFile>,
    /// For each name the files that have a piece of it, in order.
    places: BTreeMap<String, Vec<usize>>,
}

impl TensorParts {
    /// Maps all files of a checkpoint's folder. Storage errors if one is missing.
    pub fn open(folder: &Path, content: Content) -> Result<Self> {
        let mut files = Vec::new();
        let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let count = count_of(folder, content)?;
        for index in 0..count {
            let file = TensorFile::open(&folder.join(content.file_name(index, count)))?;
            for name in file.names() {
                places.entry(name).or_default().push(files.len());
            }
            files.push(file);
        }
        Ok(Self { files, places })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// A tensor by name: a view of the mapped file where one holds all of it, else the pieces
    /// joined, `[N]`.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::User(format!("the checkpoint has no tensor `{name}`"));
        let places = self.places.get(name).ok_or_else(missing)?;
        let pieces = places.iter().filter_map(|place| self.files.get(*place));
        let pieces: Vec<_> = pieces
            .map(|file| file.tensor(name))
            .collect::<Result<_>>()?;
        match pieces.as_slice() {
            [whole] => Ok(whole.shallow_clone()),
            pieces => Ok(Tensor::f_cat(pieces, 0)?),
        }
    }

    /// As [`Self::tensor`], in the shape it must have.
    pub fn shaped(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let saved = self.tensor(name)?;
        let flat = saved.dim() == 1 && saved.numel() as i64 == shape.iter().product::<i64>();
        match flat {
            true => Ok(saved.f_view(shape)?),
            false if saved.size() == shape => Ok(saved),
            false => Err(Error::User(format!(
                "`{name}` has shape {:?} in the checkpoint but the model has {shape:?}; resume \
                 with the model and method of the checkpoint",
                saved.size()
            ))),
        }
    }
}

/// How many files hold the content, by the name of any of them.
fn count_of(folder: &Path, content: Content) -> Result<i64> {
    let entries =
        std::fs::read_dir(folder).map_err(|cause| Error::storage("list", folder, &cause))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let prefix = format!("{}-", content.stem());
    let counts = names.filter_map(|name| {
        let numbers = name.to_str()?.strip_prefix(&prefix)?;
        let (_, count) = numbers.strip_suffix(".safetensors")?.split_once("-of-")?;
        count.parse().ok()
    });
    Ok(counts.max().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_tensors;

    #[test]
    fn pieces_of_the_ranks_are_the_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let whole = Tensor::arange(12, (tch::Kind::Float, tch::Device::Cpu));
        for (index, (begin, length)) in [(0, 5), (5, 4), (9, 3)].into_iter().enumerate() {
            let path = folder
                .path()
                .join(Content::Weights.file_name(index as i64, 3));
            write_tensors(&path, [("w", &whole.narrow(0, begin, length))]).unwrap();
        }
        let parts = TensorParts::open(folder.path(), Content::Weights).unwrap();
        assert_eq!(parts.names().collect::<Vec<_>>(), ["w"]);
        assert_eq!(parts.shaped("w", &[3, 4]).unwrap(), whole.view([3, 4]));
        let error = parts.shaped("w", &[5, 4]).unwrap_err().to_string();
        assert!(
            error.contains("[12]") && error.contains("[5, 4]"),
            "{error}"
        );
        let lost = folder.path().join(Content::Weights.file_name(1, 3));
        std::fs::remove_file(&lost).unwrap();
        let error = TensorParts::open(folder.path(), Content::Weights).unwrap_err();
        assert!(error.to_string().contains("00002-of-00003"), "{error}");
    }
}
