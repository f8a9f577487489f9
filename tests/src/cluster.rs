use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use tokio::process::Command;

/// Runs a command of the `cluster` binary (`cut`, `mend`, `signal`, `load`, ...) against the
/// cluster that `VLFT_CLUSTER` names, and returns what it printed.
pub async fn cluster_command(arguments: &[&str]) -> Result<String> {
    let output = Command::new(program()?)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run the cluster binary")?;
    if !output.status.success() {
        bail!(
            "cluster {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `VLFT_CLUSTER_BIN`, else the one that cargo put beside the tests.
fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VLFT_CLUSTER_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe().context("cannot find this program")?;
    let built = test.ancestors().nth(2).map(|folder| folder.join("cluster"));
    let built = built.filter(|path| path.is_file());
    built.context("the cluster binary is not built: run `cargo build -p cluster`")
}
