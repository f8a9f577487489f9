//! The cluster's mount namespace (it begins as a private copy of the machine's).

use crate::layout::RUN;
use anyhow::{Context, Result};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders with fixed names that components write to: `/run` (shim sockets, namespaces),
/// `/var/log` (links to container logs) and `/var/lib/cni` (results of CNI calls).
const PRIVATE: [&str; 3] = [RUN, "/var/log", "/var/lib/cni"];

/// Gives the cluster's processes a /proc of their PID namespace and private copies of the
/// folders above. Inside, mounts propagate: a volume mounted by the kubelet reaches its pod.
pub fn privatise() -> Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::SHARED,
    )
    .context("cannot make / shared")?;
    place("proc", "/proc")?;
    for folder in PRIVATE {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
        place("tmpfs", folder)?;
    }
    fs::create_dir_all(Path::new(RUN).join("netns")).context("cannot create the netns folder")
}

fn place(kind: &str, folder: &str) -> Result<()> {
    mount(
        kind,
        folder,
        kind,
        MountFlags::NOSUID | MountFlags::NODEV,
        None,
    )
    .with_context(|| format!("cannot mount {kind} at {folder}"))
}

/// Unmounts whatever lies below `folder` in the machine's own mount namespace, so that removing
/// the folder never reaches into another file system. The cluster itself mounts nothing there.
pub fn unmount_below(folder: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
    for point in below(&table, folder) {
        unmount(&point, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

/// Mount points below `folder`, deepest first.
fn below(mounts: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_and_the_deepest_first() {
        let table = "a /c/run/vlft tmpfs rw 0 0\nb /c/run/vlft/x/y tmpfs rw 0 0\nc /c/run/vlft2 tmpfs rw 0 0\n";
        let found = below(table, Path::new("/c/run/vlft"));
        assert_eq!(
            found,
            [
                PathBuf::from("/c/run/vlft/x/y"),
                PathBuf::from("/c/run/vlft")
            ]
        );
    }
}
