//! Results, usage errors and panics -> exit codes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::error::{Error, Result};

/// Runs `command`; a panic becomes an [`Error`] with the place and message of the panic.
/// tch's infallible operators panic on libtorch errors, so an out-of-memory may arrive here.
pub(super) fn catching_panics(command: impl FnOnce() -> Result<()>) -> Result<()> {
    std::panic::set_hook(Box::new(|info| eprintln!("panic: {info}")));
    let outcome = catch_unwind(AssertUnwindSafe(command));
    let _ = std::panic::take_hook();
    outcome.unwrap_or_else(|payload| {
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
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help and version are successes; anything else that clap refuses is the user's error.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be told to anyone if stdout and stderr are closed.
    let _ = error.print();
    if error.use_stderr()
        && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        ExitCode::from(Error::User(String::new()).exit_code())
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_bug_and_an_allocator_panic_out_of_memory() {
        let bug = catching_panics(|| panic!("index 3 out of range"));
        assert!(matches!(bug, Err(Error::Bug(m)) if m.contains("index 3")));
        let memory = catching_panics(|| panic!("Torch(\"CUDA out of memory\")"));
        assert!(matches!(memory, Err(Error::OutOfMemory(_))));
    }
}
