//! Status codes of the C++ side as Rust errors.

use std::ffi::{CStr, c_char, c_int, c_void};

/// What libtorch threw.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    OutOfMemory(String),
    #[error("{0}")]
    Torch(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a libtorch message (of tch's errors, which carry no class) says that memory ran out.
pub fn is_out_of_memory(message: &str) -> bool {
    const SIGNS: [&str; 5] = [
        "out of memory",
        "can't allocate memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "std::bad_alloc",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

impl Error {
    pub(crate) fn from_message(message: String) -> Self {
        if is_out_of_memory(&message) {
            Self::OutOfMemory(message)
        } else {
            Self::Torch(message)
        }
    }
}

impl Error {
    /// The same error with what was being done before it.
    pub(crate) fn within(self, what: &str) -> Self {
        match self {
            Self::OutOfMemory(message) => Self::OutOfMemory(format!("{what}: {message}")),
            Self::Torch(message) => Self::Torch(format!("{what}: {message}")),
            Self::Io(error) => Self::Io(error),
        }
    }
}

unsafe extern "C" {
    fn vlft_free(message: *mut c_void);
}

/// Takes ownership of a C string made with `strdup`.
pub(crate) fn owned_string(text: *mut c_char) -> String {
    if text.is_null() {
        return "unknown".to_owned();
    }
    // SAFETY: the C++ side returns a NUL-terminated heap string that nobody else frees.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        vlft_free(text.cast());
        copy
    }
}

/// Runs a C++ call that reports through a status and a message.
pub(crate) fn checked(call: impl FnOnce(*mut *mut c_char) -> c_int) -> Result<()> {
    let mut message: *mut c_char = std::ptr::null_mut();
    match call(&raw mut message) {
        0 => Ok(()),
        2 => Err(Error::OutOfMemory(owned_string(message))),
        _ => Err(Error::from_message(owned_string(message))),
    }
}

/// A tensor's C++ handle. The C++ side copies the (reference-counted) tensor and never frees it.
pub(crate) fn handle(tensor: &tch::Tensor) -> *mut c_void {
    tensor.as_ptr().cast_mut().cast()
}
