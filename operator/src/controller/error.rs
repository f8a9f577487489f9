//! Why a reconciliation failed; whether it is worth a retry lies in the type.

use vlft_crds::contract::truncate_end;
use vlft_crds::status::Phase;

use super::decide::{Decision, Input};

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read from the API server: {0}")]
    Read(#[source] Box<kube::Error>),
    #[error("cannot write {child}: {source}")]
    Write {
        child: &'static str,
        source: Box<kube::Error>,
    },
    /// The API server understood and refuses: the same request will be refused again.
    #[error("the API server refuses {child}: {message}")]
    Refused {
        child: &'static str,
        message: String,
    },
    #[error("{kind} `{name}` exists and is not this resource's; delete it or rename this resource")]
    NameTaken { kind: &'static str, name: String },
    #[error("the resource has changed since it was read")]
    Conflict,
    #[error("this replica does not hold the lease any more")]
    NotLeader,
    #[error("timed out")]
    TimedOut,
}

impl Error {
    pub fn read(error: kube::Error) -> Self {
        Self::Read(Box::new(error))
    }

    /// Classifies the error of a write.
    pub fn write(child: &'static str, error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 405 | 422) => {
                Self::Refused {
                    child,
                    message: status.message.clone(),
                }
            }
            _ => Self::Write {
                child,
                source: Box::new(error),
            },
        }
    }

    /// The error as a metric label and condition reason.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Read(_) => "Read",
            Self::Write { .. } => "Write",
            Self::Refused { .. } => "Refused",
            Self::NameTaken { .. } => "NameTaken",
            Self::Conflict => "Conflict",
            Self::NotLeader => "NotLeader",
            Self::TimedOut => "TimedOut",
        }
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict)
    }

    /// What people must know of it, as status says it; `None` for what passes by itself.
    pub fn as_decision(&self, input: &Input) -> Option<Decision> {
        if !matches!(self, Self::Refused { .. } | Self::NameTaken { .. }) {
            return None;
        }
        let mut message = self.to_string();
        truncate_end(&mut message, vlft_crds::status::MAX_MESSAGE_BYTES);
        let phase = if input.is_open() {
            Phase::Starting
        } else {
            input.status.phase
        };
        Some(Decision::note(phase, self.kind(), message))
    }
}
