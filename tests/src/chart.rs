//! The Helm chart as the tests use it: where it lies, and helm.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The chart's folder.
pub fn folder() -> PathBuf {
    root().join("charts/vlfinetune-operator")
}

/// helm: `VLFT_HELM`, else the one that scripts/go-tools.sh builds, else the path's.
pub fn helm() -> Command {
    tool("VLFT_HELM", "helm")
}

/// kubectl: `VLFT_KUBECTL`, else the one that scripts/go-tools.sh builds, else the path's.
pub fn kubectl() -> Command {
    tool("VLFT_KUBECTL", "kubectl")
}

/// The cluster is on this machine: whatever proxy the environment names is not for it.
fn tool(variable: &str, name: &str) -> Command {
    let built =
        std::env::var_os("VLFT_CACHE").map(|cache| Path::new(&cache).join("bin").join(name));
    let named = std::env::var_os(variable).map(PathBuf::from);
    let program = named.or_else(|| built.filter(|file| file.exists()));
    let mut command = Command::new(program.unwrap_or_else(|| name.into()));
    command.env("NO_PROXY", "*");
    command
}

/// Runs a command to its end; an exit status other than 0 is an error with what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        bail!("{command:?} ended with {}:\n{printed}{said}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn output(command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("cannot start {command:?}; is it installed?"))
}

/// The documents that `helm template` renders with these arguments.
///
/// # Errors
/// When helm refuses, with its message.
pub fn template(arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = helm();
    command
        .args(["template", "vlfinetune-operator"])
        .arg(folder());
    command
        .args(["--namespace", "vlfinetune-system"])
        .args(arguments);
    let rendered = run(&mut command)?;
    serde_yaml::Deserializer::from_str(&rendered)
        .map(|document| Value::deserialize(document).context("the chart renders broken YAML"))
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect()
}
