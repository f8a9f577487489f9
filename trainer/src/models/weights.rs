//! A checkpoint's tensors: safetensors files, sharded or not, memory-mapped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};
use torch_ext::MappedFile;

use crate::engine::{ParameterSpec, TensorSource};
use crate::error::{Error, Result};

/// The tensors of one folder, by the names they have on disk.
#[derive(Debug)]
pub struct Weights {
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    /// Bytes from the file's start.
    offset: usize,
    shape: Vec<i64>,
    kind: Kind,
}

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// How many names an error lists.
const LISTED: usize = 20;

impl Weights {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut weights = Self {
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for path in files(folder)? {
            weights.add_file(&path)?;
        }
        Ok(weights)
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let broken = |e: &dyn std::fmt::Display| {
            Error::User(format!(
                "{}: {e}; the file is missing, cut off or no safetensors file",
                path.display()
            ))
        };
        let mapped = MappedFile::open(path).map_err(|e| broken(&e))?;
        let (header, metadata) =
            SafeTensors::read_metadata(mapped.bytes()).map_err(|e| broken(&e))?;
        // Eight bytes of header length come before the header.
        let start = header + 8;
        if start + metadata.data_len() > mapped.bytes().len() {
            return Err(broken(&"is shorter than its header says"));
        }
        for (name, info) in metadata.tensors() {
            let kind = kind_of(info.dtype).map_err(|e| broken(&format!("tensor {name}: {e}")))?;
            let shape = info.shape.iter().map(|d| d.cast_signed() as i64).collect();
            let offset = start + info.data_offsets.0;
            let entry = Entry {
                file: self.files.len(),
                offset,
                shape,
                kind,
            };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(broken(&format!("tensor {name} is in two files")));
            }
        }
        self.files.push(mapped);
        Ok(())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Bytes that a tensor takes; 0 if there is none of that name.
    pub fn bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |entry| {
            let elements: i64 = entry.shape.iter().product();
            elements.unsigned_abs() * entry.kind.elt_size_in_bytes() as u64
        })
    }

    /// Errors, listing them, unless the checkpoint holds exactly the tensors of `specs`, in
    /// their shapes, besides those that `ignored` accepts.
    pub fn verify<'a>(
        &self,
        specs: impl Iterator<Item = &'a ParameterSpec>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let wanted: BTreeMap<&str, &[i64]> = specs
            .map(|spec| (spec.name.as_str(), spec.shape.as_slice()))
            .collect();
        let mut problems = Problems::default();
        for (name, shape) in &wanted {
            match self.tensors.get(*name) {
                None => problems.missing.push((*name).to_owned()),
                Some(entry) if entry.shape != *shape => problems.wrong.push(format!(
                    "{name} is {:?}, the model needs {shape:?}",
                    entry.shape
                )),
                Some(_) => {}
            }
        }
        let unexpected = self
            .names()
            .filter(|name| !wanted.contains_key(name) && !ignored(name));
        problems.unexpected = unexpected.map(str::to_owned).collect();
        problems.into_result()
    }
}

impl TensorSource for Weights {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let found = self
            .tensors
            .get(name)
            .and_then(|e| Some((e, self.files.get(e.file)?)));
        let (entry, file) = found
            .ok_or_else(|| Error::User(format!("the checkpoint has no tensor named {name}")))?;
        Ok(file.tensor(entry.offset, &entry.shape, entry.kind)?)
    }
}

#[derive(Default)]
struct Problems {
    wrong: Vec<String>,
    missing: Vec<String>,
    unexpected: Vec<String>,
}

impl Problems {
    fn into_result(self) -> Result<()> {
        let parts = [
            ("of the wrong shape", self.wrong),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
        ];
        let listed: Vec<_> = parts
            .iter()
            .filter(|p| !p.1.is_empty())
            .map(listing)
            .collect();
        if listed.is_empty() {
            return Ok(());
        }
        Err(Error::User(format!(
            "the weights do not fit config.json: {}; use a folder whose files belong together",
            listed.join("; ")
        )))
    }
}

fn listing((what, names): &(&str, Vec<String>)) -> String {
    let shown: Vec<_> = names.iter().take(LISTED).map(String::as_str).collect();
    let more = match names.len().saturating_sub(LISTED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("{} {what}: {}{more}", names.len(), shown.join(", "))
}

/// The files that hold the weights, in a fixed order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join(INDEX);
    if index.is_file() {
        return shards(folder, &index);
    }
    let single = folder.join(SINGLE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    Err(Error::User(format!(
        "{}: there is neither {SINGLE} nor {INDEX}; pickled weights (.bin, .pt) are refused, \
         save the model with safetensors",
        folder.display()
    )))
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let broken = |e: &dyn std::fmt::Display| Error::User(format!("{}: {e}", index.display()));
    let text = std::fs::read_to_string(index).map_err(|e| broken(&e))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| broken(&e))?;
    let map = value.get("weight_map").and_then(|m| m.as_object());
    let map = map.ok_or_else(|| broken(&"weight_map is missing"))?;
    let mut names = std::collections::BTreeSet::new();
    for name in map.values() {
        let plain = name
            .as_str()
            .filter(|n| !n.is_empty() && !n.contains(['/', '\\']));
        names.insert(plain.ok_or_else(|| broken(&format!("{name} is no file name")))?);
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn kind_of(dtype: Dtype) -> Result<Kind, String> {
    match dtype {
        Dtype::F64 => Ok(Kind::Double),
        Dtype::F32 => Ok(Kind::Float),
        Dtype::BF16 => Ok(Kind::BFloat16),
        Dtype::F16 => Ok(Kind::Half),
        other => Err(format!(
            "kind {other:?} is not a floating-point kind that can be trained"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Init, Tower};

    fn spec(name: &str, shape: &[i64]) -> ParameterSpec {
        ParameterSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            tower: Tower::Language,
            trainable: true,
            init: Init::Checkpoint,
        }
    }

    fn save(path: &Path, tensors: &[(&str, Tensor)]) {
        Tensor::write_safetensors(tensors, path).unwrap();
    }

    #[test]
    fn shards_are_read_and_every_mismatch_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let ones = Tensor::ones([2, 2], (Kind::Float, tch::Device::Cpu));
        save(
            &folder.path().join("a.safetensors"),
            &[("x", ones.shallow_clone())],
        );
        save(
            &folder.path().join("b.safetensors"),
            &[("y", ones.shallow_clone() * 2.0)],
        );
        let index = r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#;
        std::fs::write(folder.path().join(INDEX), index).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        assert_eq!(weights.tensor("y").unwrap().double_value(&[1, 1]), 2.0);

        let fits = [spec("x", &[2, 2]), spec("y", &[2, 2])];
        weights.verify(fits.iter(), |_| false).unwrap();
        let other = [spec("x", &[4]), spec("z", &[1])];
        let message = weights
            .verify(other.iter(), |_| false)
            .unwrap_err()
            .to_string();
        for part in [
            "1 of the wrong shape: x is [2, 2], the model needs [4]",
            "1 missing: z",
            "1 unexpected: y",
        ] {
            assert!(message.contains(part), "{message}");
        }
        weights
            .verify(fits.iter().take(1), |name| name == "y")
            .unwrap();
    }

    #[test]
    fn a_cut_file_and_an_escaping_shard_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SINGLE);
        save(
            &file,
            &[("x", Tensor::ones([64], (Kind::Float, tch::Device::Cpu)))],
        );
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 4]).unwrap();
        let message = Weights::open(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains(SINGLE) && message.contains("cut off"),
            "{message}"
        );

        std::fs::write(
            folder.path().join(INDEX),
            r#"{"weight_map": {"x": "../y"}}"#,
        )
        .unwrap();
        let message = Weights::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("is no file name"), "{message}");
    }
}
