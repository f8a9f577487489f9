//! A cluster of one test, and the traces that it must not leave.

// Helpers of tests: what goes wrong here fails the test that called them.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static TURN: Mutex<()> = Mutex::new(());

/// Two cores carry one cluster at a time.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {} s for {what}",
            timeout.as_secs()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Takes itself down, also when a test fails.
pub struct TestCluster {
    name: &'static str,
    cache: PathBuf,
}

/// What identifies a running cluster's namespaces: inode numbers of /proc/PID/ns/*.
#[derive(Debug, Default)]
pub struct Traces {
    namespaces: HashSet<(String, u64)>,
}

impl TestCluster {
    pub fn new(name: &'static str) -> Self {
        let cache = std::env::var_os("VLFT_CACHE").map(PathBuf::from);
        let home = || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/vlfinetune");
        Self {
            name,
            cache: cache.unwrap_or_else(home),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        command
            .args(["--name", self.name])
            .args(arguments)
            .env("VLFT_CACHE", &self.cache);
        command
    }

    pub fn must(&self, arguments: &[&str]) -> String {
        success(self.command(arguments).output().unwrap(), arguments)
    }

    /// Standard error of a command that has to fail.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub fn must_start(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        success(
            Command::new(program).args(arguments).output().unwrap(),
            arguments,
        )
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.cache.join("bin/kubectl"));
        command
            .arg("--kubeconfig")
            .arg(self.state().join("kubeconfig"))
            .args(arguments);
        command.arg("--request-timeout=90s").env("NO_PROXY", "*");
        command
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> bool {
        self.kubectl_command(arguments)
            .output()
            .unwrap()
            .status
            .success()
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        success(self.kubectl_command(arguments).output().unwrap(), arguments)
    }

    pub fn apply(&self, manifest: &str) {
        let mut command = self.kubectl_command(&["apply", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub fn load_busybox(&self) {
        let archive = self.cache.join("images/busybox.tar");
        self.must(&["load", archive.to_str().unwrap()]);
    }

    fn state(&self) -> PathBuf {
        self.cache.join("run").join(self.name)
    }

    fn record(&self) -> Option<serde_json::Value> {
        let text = fs::read_to_string(self.state().join("cluster.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub fn init_process(&self) -> Option<i64> {
        self.record()?["initProcess"].as_i64()
    }

    pub fn machine_address(&self) -> String {
        self.record().unwrap()["machineAddress"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub fn volumes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state().join("volumes")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The process id that `status` names for a component.
    pub fn process(&self, component: &str) -> Option<u32> {
        let output = self.command(&["status"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(component))?;
        line.rsplit_once("process ")?.1.trim().parse().ok()
    }

    /// The namespaces of every process in the cluster's cgroups that are not this machine's.
    pub fn traces(&self) -> Traces {
        let own: HashSet<_> = namespaces_of("self").into_iter().collect();
        let processes = self
            .cgroups()
            .into_iter()
            .flat_map(|folder| processes_below(&folder));
        let namespaces = processes.flat_map(|pid| namespaces_of(&pid.to_string()));
        let namespaces = namespaces
            .filter(|namespace| !own.contains(namespace))
            .collect();
        Traces { namespaces }
    }

    /// Processes of this machine that are in one of the cluster's namespaces or cgroups.
    pub fn processes_of(&self, traces: &Traces) -> Vec<u32> {
        let everyone = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let mut found: Vec<u32> = everyone
            .filter(|pid| {
                namespaces_of(&pid.to_string())
                    .iter()
                    .any(|ns| traces.namespaces.contains(ns))
            })
            .collect();
        found.extend(
            self.cgroups()
                .iter()
                .flat_map(|folder| processes_below(folder)),
        );
        found.retain(|pid| !ended(*pid));
        found
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let roots = roots.chain([PathBuf::from("/sys/fs/cgroup")]);
        let ours = roots.map(|root| root.join(format!("vlft-{}", self.name)));
        ours.filter(|folder| folder.exists()).collect()
    }

    /// No process, namespace, mount, interface, cgroup or file but logs.
    pub fn assert_gone(&self, traces: &Traces) {
        let left: Vec<_> = self
            .processes_of(traces)
            .into_iter()
            .map(describe)
            .collect();
        assert_eq!(left, [""; 0], "processes are left");
        assert!(
            self.cgroups().is_empty(),
            "cgroups are left: {:?}",
            self.cgroups()
        );
        let link = format!("/sys/class/net/vlft-{}", self.name);
        assert!(!Path::new(&link).exists(), "interface {link} is left");
        // A namespace without processes lives on only where it is mounted (type nsfs).
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = self.state().display().to_string();
        for line in mounts.lines() {
            let mounted_namespace = traces
                .namespaces
                .iter()
                .any(|(kind, inode)| line.contains(&format!("{kind}:[{inode}]")));
            assert!(!mounted_namespace, "a namespace is still mounted: {line}");
            assert!(
                !line.contains(&format!("{state}/")),
                "a mount is left: {line}"
            );
        }
        for folder in [
            "/run/netns/node1",
            "/run/containerd/s",
            "/var/log/containers",
            "/var/log/pods",
        ] {
            let machine_has_its_own = Path::new("/run/containerd/containerd.sock").exists();
            assert!(
                machine_has_its_own || !Path::new(folder).exists(),
                "{folder} is left"
            );
        }
        let left: Vec<_> = fs::read_dir(self.state()).into_iter().flatten().collect();
        let left: Vec<_> = left
            .into_iter()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            left.iter().all(|name| name == "logs"),
            "files are left: {left:?}"
        );
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("logs are in {}", self.state().join("logs").display());
        }
        let _ = self.command(&["down"]).output();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(self.state());
        }
    }
}

fn success(output: Output, arguments: &[&str]) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?}: {} {said}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn namespaces_of(pid: &str) -> Vec<(String, u64)> {
    let kinds = ["mnt", "net", "pid"];
    let inode = |kind: &&str| {
        fs::metadata(format!("/proc/{pid}/ns/{kind}"))
            .ok()
            .map(|m| m.ino())
    };
    kinds
        .iter()
        .filter_map(|kind| Some(((*kind).to_owned(), inode(kind)?)))
        .collect()
}

/// It is no process any more, or one that only waits for the machine's own init to be collected.
fn ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn describe(pid: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    format!(
        "{pid}: {} ({})",
        read("cmdline").replace('\0', " "),
        read("stat")
    )
}

fn processes_below(folder: &Path) -> Vec<u32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let own: Vec<u32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    let entries = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok());
    let folders = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    folders
        .flat_map(|folder| processes_below(&folder))
        .chain(own)
        .collect()
}
