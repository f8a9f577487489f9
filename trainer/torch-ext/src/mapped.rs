//! Tensors as private views of a mapped file.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};
use tch::{Kind, Tensor};

use crate::error::{Error, Result, checked};

unsafe extern "C" {
    fn vlft_tensor_over(
        data: *mut c_void,
        shape: *const i64,
        dims: usize,
        kind: c_int,
        owner: *mut c_void,
        drop: extern "C" fn(*mut c_void),
        result: *mut *mut c_void,
        message: *mut *mut c_char,
    ) -> c_int;
}

/// A file mapped copy-on-write: whatever is written to a view stays in this process. Pages are
/// read when touched and cost no memory of their own until written.
#[derive(Debug, Clone)]
pub struct MappedFile(Arc<MmapMut>);

extern "C" fn drop_owner(owner: *mut c_void) {
    // SAFETY: `owner` came from `Box::into_raw` in `tensor`, and libtorch calls this once.
    drop(unsafe { Box::from_raw(owner.cast::<Arc<MmapMut>>()) });
}

impl MappedFile {
    /// Maps the whole file. It must not be truncated while mapped (the kernel would raise
    /// SIGBUS); checkpoints are published by rename and never changed in place.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path)?;
        // SAFETY: private mapping; see above for truncation.
        Ok(Self(Arc::new(unsafe {
            MmapOptions::new().map_copy(&file)?
        })))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A CPU tensor over the bytes from `offset`; it keeps the mapping alive. Bytes that are
    /// not aligned for `kind` are copied instead. Errors if it would leave the file.
    pub fn tensor(&self, offset: usize, shape: &[i64], kind: Kind) -> Result<Tensor> {
        let outside = || {
            let length = self.0.len();
            Error::Torch(format!(
                "tensor {shape:?} at byte {offset} leaves the file of {length}"
            ))
        };
        let elements = shape
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        let size = kind.elt_size_in_bytes();
        let bytes = elements
            .and_then(|n| n.checked_mul(size))
            .ok_or_else(outside)?;
        let end = offset.checked_add(bytes).ok_or_else(outside)?;
        let slice = self.0.get(offset..end).ok_or_else(outside)?;
        if bytes == 0 || slice.as_ptr().align_offset(size) != 0 {
            return Tensor::f_from_data_size(slice, shape, kind)
                .map_err(|e| Error::from_message(e.to_string()));
        }
        self.view(slice.as_ptr(), shape, kind)
    }

    fn view(&self, data: *const u8, shape: &[i64], kind: Kind) -> Result<Tensor> {
        let kind = scalar_type(kind)?;
        let owner = Box::into_raw(Box::new(Arc::clone(&self.0)));
        let mut result = std::ptr::null_mut();
        // SAFETY: the caller checked that the shape lies inside the mapping, which `owner` keeps
        // alive until libtorch drops the storage; the mapping is writable and private.
        let status = checked(|m| unsafe {
            let (shape, dims) = (shape.as_ptr(), shape.len());
            let (data, owner) = (data.cast_mut().cast(), owner.cast());
            vlft_tensor_over(
                data,
                shape,
                dims,
                kind,
                owner,
                drop_owner,
                &raw mut result,
                m,
            )
        });
        match status {
            // SAFETY: a fresh handle that tch frees from now on.
            Ok(()) => Ok(unsafe { Tensor::from_ptr(result.cast()) }),
            Err(error) => {
                drop_owner(owner.cast());
                Err(error)
            }
        }
    }
}

/// libtorch's `ScalarType` of the kinds that a file may hold; tch keeps its own table private.
fn scalar_type(kind: Kind) -> Result<c_int> {
    match kind {
        Kind::Uint8 => Ok(0),
        Kind::Int64 => Ok(4),
        Kind::Half => Ok(5),
        Kind::Float => Ok(6),
        Kind::Double => Ok(7),
        Kind::BFloat16 => Ok(15),
        other => Err(Error::Torch(format!("no mapped tensors of kind {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_view_outlives_its_handle_and_writes_stay_private() -> Result<()> {
        let values = [1.0f32, 2.0, 3.0, 4.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let file = file_of(&bytes);
        let mapped = MappedFile::open(file.path())?;
        let mut view = mapped.tensor(4, &[3, 1], Kind::Float)?;
        drop(mapped);
        assert_eq!(
            Vec::<f32>::try_from(view.flatten(0, 1)).unwrap(),
            [2.0, 3.0, 4.0]
        );
        let _ = view.fill_(9.0);
        assert_eq!(std::fs::read(file.path())?, bytes);
        Ok(())
    }

    #[test]
    fn bfloat16_bytes_are_bfloat16_even_if_misaligned() -> Result<()> {
        // 1.5 is 0x3fc0 in bfloat16.
        let mapped = MappedFile::open(file_of(&[0xff, 0xc0, 0x3f]).path())?;
        let value = mapped.tensor(1, &[1], Kind::BFloat16)?;
        assert_eq!(
            (value.kind(), value.double_value(&[0])),
            (Kind::BFloat16, 1.5)
        );
        Ok(())
    }

    #[test]
    fn leaving_the_file_is_an_error() -> Result<()> {
        let mapped = MappedFile::open(file_of(&[0; 16]).path())?;
        for (offset, shape) in [
            (0, [5i64]),
            (16, [1]),
            (usize::MAX, [1]),
            (0, [-1]),
            (0, [i64::MAX]),
        ] {
            let error = mapped.tensor(offset, &shape, Kind::Float).unwrap_err();
            assert!(
                error.to_string().contains("leaves the file of 16"),
                "{error}"
            );
        }
        Ok(())
    }
}
