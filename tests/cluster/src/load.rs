//! `cluster load`.

use crate::layout::Layout;
use crate::record::Record;
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Imports each archive into every node.
pub fn load(layout: &Layout, archives: &[PathBuf]) -> Result<()> {
    ensure!(
        !archives.is_empty(),
        "load: name at least one image archive"
    );
    let record = Record::load(layout)?;
    for archive in archives {
        ensure!(
            archive.is_file(),
            "load: {} is not a file",
            archive.display()
        );
        import(&record, archive)?;
        println!("cluster {}: loaded {}", layout.name, archive.display());
    }
    Ok(())
}

/// Imports one archive into all nodes at once.
pub fn import(record: &Record, archive: &Path) -> Result<()> {
    std::thread::scope(|scope| {
        let imports: Vec<_> = record
            .nodes
            .iter()
            .map(|node| scope.spawn(|| tools::run(&mut ctr(record, &node.run_folder(), archive))))
            .collect();
        imports
            .into_iter()
            .try_for_each(|import| match import.join() {
                Ok(result) => result
                    .map(|_| ())
                    .with_context(|| format!("cannot load {}", archive.display())),
                Err(_) => anyhow::bail!("the import of {} broke off", archive.display()),
            })
    })
}

/// containerd's socket is on a tmpfs of the cluster, seen from here through PID 1's root.
fn ctr(record: &Record, run_folder: &str, archive: &Path) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg(format!(
            "--address={}{run_folder}/containerd.sock",
            record.root()
        ))
        .args(["--namespace=k8s.io", "images", "import"])
        .arg(archive);
    command
}
