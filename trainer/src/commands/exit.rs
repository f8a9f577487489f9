//! Results, usage errors and panics -> exit codes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use vlft_crds::contract::exit_code;

use crate::error::{Error, Result};

/// Runs `command`; a panic becomes an [`Error`] with the panic's message.
/// tch's infallible operators panic on libtorch errors, so an out-of-memory may arrive here.
pub(super) fn catching_panics<T>(command: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        Err(Error::from_panic_message(message))
    })
}

/// Prints the error, if any, and gives the exit code that the contract has for it.
pub(super) fn code_of(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            code(error.exit_code())
        }
    }
}

/// Help and version are successes; anything else that clap refuses is the user's error.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be told to anyone if stdout and stderr are closed.
    let _ = error.print();
    if error.use_stderr() {
        code(exit_code::USER_ERROR)
    } else {
        ExitCode::SUCCESS
    }
}

fn code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_bug_and_an_allocator_panic_out_of_memory() {
        let bug = catching_panics(|| -> Result<()> { panic!("index 3 out of range") });
        assert!(matches!(bug, Err(Error::Bug(m)) if m.contains("index 3")));
        let memory = catching_panics(|| -> Result<()> { panic!("Torch(\"CUDA out of memory\")") });
        assert!(matches!(memory, Err(Error::OutOfMemory(_))));
    }
}
