//! The cluster's cgroups: one of its name in each hierarchy, v1, v2 or a mix of both.
//!
//! One hierarchy (the unified one where there is one) tracks the cluster's processes: a child
//! inherits its cgroup, so whoever belongs to the cluster can be found there without any record.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The cluster's folder in every mounted hierarchy, the tracking one first.
pub struct Cgroups {
    folders: Vec<PathBuf>,
}

impl Cgroups {
    /// Reads the mount table of this process.
    pub fn of(name: &str) -> Result<Self> {
        let table =
            fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
        let folders = hierarchies(&table)
            .into_iter()
            .map(|root| root.join(name))
            .collect();
        Ok(Self { folders })
    }

    /// Where the cluster's processes are put.
    pub fn tracking(&self) -> Result<PathBuf> {
        let first = self
            .folders
            .first()
            .context("no cgroup hierarchy is mounted")?;
        Ok(first.join("daemons"))
    }

    /// Makes the folders of the cluster, of its daemons and of its nodes.
    pub fn create(&self, nodes: &[String]) -> Result<()> {
        for folder in &self.folders {
            make(folder)?;
            for node in nodes {
                make(&folder.join(node))?;
            }
        }
        make(&self.tracking()?)
    }

    /// Every process in the cluster's cgroups, by the ids of this PID namespace.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .folders
            .iter()
            .flat_map(|folder| processes_below(folder))
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process and removes the folders. Does nothing where there is none.
    pub fn destroy(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let processes = self.processes();
            for pid in processes.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
            // A folder stays busy until its last process is gone for good.
            let left: Vec<_> = self
                .folders
                .iter()
                .filter_map(|folder| remove(folder).err())
                .collect();
            match left.into_iter().next() {
                None => return Ok(()),
                Some(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("processes left: {processes:?}")));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Mount points of cgroup file systems; v2 first, since it tracks processes best.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let of_kind = |wanted: &'static str| {
        mounts.lines().filter_map(move |line| {
            let mut fields = line.split(' ').skip(1);
            let (folder, kind) = (fields.next()?, fields.next()?);
            (kind == wanted).then(|| PathBuf::from(folder))
        })
    };
    let mut found: Vec<PathBuf> = of_kind("cgroup2").chain(of_kind("cgroup")).collect();
    found.sort_by_key(|folder| folder.starts_with("/sys/fs/cgroup/systemd"));
    found
}

/// Makes one folder usable: v1 cpusets start empty, v2 controllers start switched off.
fn make(folder: &Path) -> Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    for controller in ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"] {
        // A controller may be absent, or bound to a v1 hierarchy.
        let _ = fs::write(
            parent.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
        if folder.join("cpuset.cpu_exclusive").exists() && folder.join(file).exists() {
            fs::write(folder.join(file), inherited.trim())
                .with_context(|| format!("cannot fill {file} of {}", folder.display()))?;
        }
    }
    Ok(())
}

fn processes_below(folder: &Path) -> Vec<i32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let own = own
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect::<Vec<i32>>();
    children(folder)
        .iter()
        .flat_map(|child| processes_below(child))
        .chain(own)
        .collect()
}

/// Removes a folder and those below it, deepest first.
fn remove(folder: &Path) -> Result<()> {
    for child in children(folder) {
        remove(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove cgroup {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok());
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|e| e.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_comes_first() {
        let mounts = "proc /proc proc rw 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = hierarchies(mounts);
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["unified", "memory", "systemd"]);
    }
}
