//! Running other programs, and saying which of them are missing.

use crate::layout::Layout;
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const PROGRAMS: [&str; 8] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "ip",
    "nft",
    "nsenter",
    "runc",
    "unshare",
];
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// What a component finds its programs in.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One line that names everything that is missing and the script that provides it.
pub fn require(layout: &Layout) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root (namespaces, mounts, containers)"
    );
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|name| find(name).is_none())
        .collect();
    if cni_bin().is_none() {
        missing.push("containernetworking-plugins");
    }
    if !missing.is_empty() {
        bail!("missing {}: run scripts/apt.sh cluster", missing.join(", "));
    }
    ensure!(
        layout.bin("kube").exists(),
        "the Kubernetes binaries are missing: run scripts/go-tools.sh"
    );
    ensure!(
        layout.image("pause").exists(),
        "the pause image is missing: run scripts/cluster-images.sh"
    );
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
}

/// The folder of the CNI plugins; distributions differ.
pub fn cni_bin() -> Option<&'static str> {
    CNI_FOLDERS
        .into_iter()
        .find(|folder| Path::new(folder).join("ptp").exists())
}

/// Runs a command to its end; an exit status other than 0 is an error with what it printed.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    check(command, output)
}

/// Like [`run`], and ends the program when `keep_on` fails.
pub fn run_while(command: &mut Command, keep_on: impl Fn() -> Result<()>) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    while child.try_wait()?.is_none() {
        if let Err(error) = keep_on() {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    check(command, output)
}

/// Like [`run`], with `input` on its standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early has said why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    check(command, output)
}

fn check(command: &Command, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{} ended with {}: {}",
        describe(command),
        output.status,
        said.trim()
    )
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// kubectl against this cluster, whatever proxy the environment names.
pub fn kubectl(layout: &Layout) -> Command {
    let mut command = Command::new(layout.bin("kubectl"));
    command
        .arg("--kubeconfig")
        .arg(layout.kubeconfig())
        .env("NO_PROXY", "*");
    command
}

/// A program that ends when the API server is ready; see go/kube/wait.go for more arguments.
pub fn wait_ready(layout: &Layout) -> Command {
    let mut command = Command::new(layout.bin("cluster-wait"));
    command
        .arg("--kubeconfig")
        .arg(layout.kubeconfig())
        .env("NO_PROXY", "*");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_run_and_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("exit status: 3") && message.contains("broken"),
            "{message}"
        );
    }

    #[test]
    fn input_reaches_the_program() {
        let output = feed(&mut Command::new("cat"), "two\nlines\n").unwrap();
        assert_eq!(output.stdout, b"two\nlines\n");
    }
}
