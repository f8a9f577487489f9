//! How libtorch's worker threads wait, settled before the first of them exists.

use std::os::unix::process::CommandExt;
use std::process::Command;

const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Lets idle OpenMP workers sleep instead of spin. GNU OpenMP reads the policy while it is
/// loaded, so the process replaces itself once, with the same id. Spinning workers keep the
/// cores from whatever else runs on them: on a busy machine with two cores, a step of a small
/// model took twenty times as long. Goes on as it is where the program cannot be run again.
pub fn settle_wait_policy() {
    if std::env::var_os(WAIT_POLICY).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Only returns if it failed.
    let _ = command.args(arguments).env(WAIT_POLICY, "PASSIVE").exec();
}
