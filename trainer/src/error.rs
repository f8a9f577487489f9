//! The trainer's error: a class that decides the exit code, and a message that names the
//! field, file or line and the remedy.

use std::path::Path;

use vlft_crds::contract::exit_code;
use vlft_crds::status::FailureClass;

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
    /// Asked to leave (SIGTERM, SIGINT); the checkpoint was made.
    #[error("{0}")]
    Drained(String),
    /// Another process of the run is gone or silent.
    #[error("{0}")]
    PeerLost(String),
    /// Another process of the run has kept this one waiting for too long.
    #[error("{0}")]
    Hang(String),
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

impl Error {
    /// The class that the termination report names.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::User(_) => FailureClass::UserError,
            Self::Data(_) => FailureClass::DataError,
            Self::OutOfMemory(_) => FailureClass::OutOfMemory,
            Self::Drained(_) => FailureClass::Drained,
            Self::PeerLost(_) => FailureClass::PeerLost,
            Self::Hang(_) => FailureClass::Hang,
            Self::Storage(_) => FailureClass::Storage,
            Self::Torch(_) | Self::Bug(_) => FailureClass::Bug,
        }
    }

    /// The process exit code by which the operator tells the classes apart.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::User(_) => exit_code::USER_ERROR,
            Self::Data(_) => exit_code::DATA_ERROR,
            Self::OutOfMemory(_) => exit_code::OUT_OF_MEMORY,
            Self::Drained(_) => exit_code::DRAINED,
            Self::PeerLost(_) => exit_code::PEER_LOST,
            Self::Hang(_) => exit_code::HANG,
            Self::Storage(_) => exit_code::STORAGE,
            // As Rust's own runtime exits after a panic.
            Self::Torch(_) | Self::Bug(_) => 101,
        }
    }

    /// An I/O failure on a volume we write: names the action, the path and what to do.
    pub fn storage(action: &str, path: &Path, cause: &std::io::Error) -> Self {
        let remedy = match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "; free space on that volume, keep fewer checkpoints, or use a larger one"
            }
            std::io::ErrorKind::FileTooLarge => "; raise the file size limit (ulimit -f)",
            std::io::ErrorKind::ReadOnlyFilesystem => "; mount that volume writable",
            std::io::ErrorKind::PermissionDenied => "; let the trainer's user write there",
            _ => "",
        };
        Self::Storage(format!(
            "cannot {action} {}: {cause}{remedy}",
            path.display()
        ))
    }

    /// The same error, said to have happened at a place (a file, say).
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        let said = |message: String| format!("{place}: {message}");
        match self {
            Self::User(m) => Self::User(said(m)),
            Self::Data(m) => Self::Data(said(m)),
            Self::OutOfMemory(m) => Self::OutOfMemory(said(m)),
            Self::Drained(m) => Self::Drained(said(m)),
            Self::PeerLost(m) => Self::PeerLost(said(m)),
            Self::Hang(m) => Self::Hang(said(m)),
            Self::Storage(m) => Self::Storage(said(m)),
            Self::Torch(m) => Self::Torch(said(m)),
            Self::Bug(m) => Self::Bug(said(m)),
        }
    }

    /// The error of another process of ours, known by its exit code.
    pub fn of_exit_code(code: i32, message: String) -> Self {
        match code {
            exit_code::USER_ERROR => Self::User(message),
            exit_code::DATA_ERROR => Self::Data(message),
            exit_code::OUT_OF_MEMORY => Self::OutOfMemory(message),
            exit_code::DRAINED => Self::Drained(message),
            exit_code::PEER_LOST => Self::PeerLost(message),
            exit_code::HANG => Self::Hang(message),
            exit_code::STORAGE => Self::Storage(message),
            _ => Self::Bug(message),
        }
    }

    /// Sorts a panic by its message: tch's infallible operators panic on libtorch's errors, so
    /// an out-of-memory may arrive that way.
    pub fn from_panic_message(message: &str) -> Self {
        if torch_ext::is_out_of_memory(message) {
            Self::OutOfMemory(message.to_owned())
        } else {
            Self::Bug(message.to_owned())
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocator_failure_is_out_of_memory_even_as_a_panic() {
        let cpu = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: \
                   can't allocate memory: you tried to allocate 400 bytes.";
        let error = Error::from(tch::TchError::Torch(cpu.to_owned()));
        assert!(matches!(error, Error::OutOfMemory(_)), "{error:?}");
        assert_eq!(Error::from_panic_message(cpu).exit_code(), 12);
        assert_eq!(
            Error::from_panic_message("index out of bounds").exit_code(),
            101
        );
    }

    #[test]
    fn the_exit_code_tells_the_operator_the_same_class() {
        let text = String::new;
        for error in [
            Error::User(text()),
            Error::Data(text()),
            Error::OutOfMemory(text()),
            Error::Drained(text()),
            Error::PeerLost(text()),
            Error::Hang(text()),
            Error::Storage(text()),
            Error::Torch(text()),
            Error::Bug(text()),
        ] {
            let class = vlft_crds::contract::class_of_exit_code(error.exit_code());
            assert_eq!(class, error.class());
        }
    }

    #[test]
    fn a_full_volume_says_what_to_do() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let message = Error::storage("write", Path::new("/ckpt/x"), &full).to_string();
        assert!(
            message.contains("/ckpt/x") && message.contains("free space"),
            "{message}"
        );
    }
}
