//! Tensors to and from safetensors files.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Metadata, SafeTensorError, View};
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};
use torch_ext::MappedFile;

use crate::error::{Error, Result};

/// Copied to host bytes only when its turn to be written comes.
struct Lazy {
    tensor: Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Lazy {
    fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        let kind = tensor.kind();
        let dtype = dtype_of(kind).ok_or_else(|| {
            Error::Bug(format!("`{name}`: safetensors has no place for {kind:?}"))
        })?;
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        Ok(Self {
            tensor: tensor.shallow_clone(),
            dtype,
            shape,
        })
    }
}

impl View for Lazy {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        let host = self.tensor.to_device(tch::Device::Cpu).contiguous();
        host.copy_data_u8(&mut bytes, host.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Writes tensors under their names, with the metadata `{"format":"pt"}` that transformers asks
/// for. Needs host memory for the largest of them. Not flushed to the disk.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let views = tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name, Lazy::new(name, tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|error| match error {
        SafeTensorError::IoError(cause) => Error::storage("write", path, &cause),
        other => Error::Bug(format!("{}: {other}", path.display())),
    })
}

/// A mapped safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    name: String,
    file: MappedFile,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    data: usize,
}

impl TensorFile {
    /// Maps the file and reads its header; the tensors' own bytes are read as they are used.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = MappedFile::open(path)
            .map_err(|cause| Error::Storage(format!("cannot read {name}: {cause}")))?;
        let (header, metadata) = SafeTensors::read_metadata(file.bytes())
            .map_err(|cause| Error::Storage(format!("{name}: not a safetensors file: {cause}")))?;
        Ok(Self {
            name,
            file,
            metadata,
            // The header is preceded by its own length.
            data: header + size_of::<u64>(),
        })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.metadata.tensors().into_keys().collect();
        names.sort();
        names
    }

    /// A tensor by name; it shares the mapping, and writes to it stay private.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| Error::User(format!("{}: has no tensor `{name}`", self.name)))?;
        let kind = kind_of(info.dtype).ok_or_else(|| {
            let dtype = info.dtype;
            Error::User(format!(
                "{}: `{name}` is {dtype:?}, which cannot be read",
                self.name
            ))
        })?;
        let shape: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
        Ok(self
            .file
            .tensor(self.data + info.data_offsets.0, &shape, kind)?)
    }
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS
        .iter()
        .find(|(k, _)| *k == kind)
        .map(|(_, dtype)| *dtype)
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS
        .iter()
        .find(|(_, d)| *d == dtype)
        .map(|(kind, _)| *kind)
}

const KINDS: [(Kind, Dtype); 6] = [
    (Kind::Double, Dtype::F64),
    (Kind::Float, Dtype::F32),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Uint8, Dtype::U8),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let base = Tensor::from_slice(&[1.5f64, -2.0, 0.0, 3.0, 1.0, 7.0]).view([2, 3]);
        let tensors: Vec<_> = KINDS
            .iter()
            .map(|(kind, _)| (format!("{kind:?}"), base.to_kind(*kind)))
            .collect();
        let transposed = base.tr();
        let scalar = Tensor::from(5.0f32);
        let all = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let all = all.chain([("transposed", &transposed), ("scalar", &scalar)]);
        write_tensors(&path, all.clone()).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().len(), KINDS.len() + 2);
        for (name, tensor) in all {
            let read = file.tensor(name).unwrap();
            assert_eq!((read.kind(), read.size()), (tensor.kind(), tensor.size()));
            assert_eq!(
                read.to_kind(Kind::Double),
                tensor.to_kind(Kind::Double),
                "{name}"
            );
        }
        let error = file.tensor("missing").unwrap_err().to_string();
        assert!(error.contains("`missing`"), "{error}");
    }

    #[test]
    fn a_full_disk_is_a_storage_error_that_names_the_file() {
        let tensor = Tensor::zeros([1 << 16], (Kind::Float, tch::Device::Cpu));
        let error = write_tensors(Path::new("/dev/full"), [("w", &tensor)]).unwrap_err();
        assert!(
            matches!(&error, Error::Storage(m) if m.contains("/dev/full") && m.contains("free space")),
            "{error:?}"
        );
    }
}
