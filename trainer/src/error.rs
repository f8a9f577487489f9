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
    Torch(#[from] tch::TchError),
    /// A defect of ours.
    #[error("internal error: {0}")]
    Bug(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
