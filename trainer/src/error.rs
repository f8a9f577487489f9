//! The trainer's error: a class that decides the exit code, and a message that names the
//! field, file or line and the remedy.

/// Why a run ends; maps one to one to the exit codes of `vlft_crds::contract`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec or the model is at fault; never retried.
    #[error("{0}")]
    User(String),
    /// The data is at fault; never retried.
    #[error("{0}")]
    Data(String),
    /// Memory ran out, on the device or the host.
    #[error("{0}")]
    OutOfMemory(String),
    /// A volume failed: full, read-only, torn.
    #[error("{0}")]
    Storage(String),
    /// Libtorch failed in a way that no input explains.
    #[error("libtorch: {0}")]
    Torch(String),
    /// A defect of ours.
    #[error("internal error: {0}")]
    Bug(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        let message = error.to_string();
        if torch_ext::is_out_of_memory(&message) {
            Self::OutOfMemory(message)
        } else {
            Self::Torch(message)
        }
    }
}

impl From<torch_ext::Error> for Error {
    fn from(error: torch_ext::Error) -> Self {
        match error {
            torch_ext::Error::OutOfMemory(message) => Self::OutOfMemory(message),
            torch_ext::Error::Torch(message) => Self::Torch(message),
            torch_ext::Error::Io(error) => Self::Storage(error.to_string()),
        }
    }
}
