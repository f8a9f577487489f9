//! `cluster down`.

use crate::cgroup::Cgroups;
use crate::layout::Layout;
use crate::{mounts, network};
use anyhow::{Context, Result, bail};
use std::fs::{self, File, TryLockError};
use std::time::Duration;

/// Ends the cluster; does nothing when there is none.
pub fn down(layout: &Layout) -> Result<()> {
    let _lock = lock(layout)?;
    let was_there = layout.record().exists();
    clean(layout)?;
    let what = if was_there { "is down" } else { "was not up" };
    println!("cluster {}: {what}", layout.name);
    Ok(())
}

/// One `up` or `down` of a name at a time; held until the file is dropped.
pub fn lock(layout: &Layout) -> Result<File> {
    let path = layout.lock();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another `cluster up` or `cluster down` of {:?} is at work",
                layout.name
            )
        }
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock"),
    }
}

/// Removes everything of the cluster but its logs, whatever state it is in. Nothing is looked up
/// in a record: what is left is found by the cluster's name.
pub fn clean(layout: &Layout) -> Result<()> {
    // With PID 1 the kernel ends its whole PID namespace, and then the mount and network
    // namespaces that nobody is in any more.
    Cgroups::of(&layout.cgroup())?.destroy(Duration::from_secs(20))?;
    network::detach(&layout.host_link())?;
    mounts::unmount_below(&layout.state())?;
    let entries = match fs::read_dir(layout.state()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", layout.state().display()))?,
    };
    for entry in entries {
        let path = entry?.path();
        if path == layout.logs() {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
