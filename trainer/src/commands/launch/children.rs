//! The parent of a node's processes: starts them, passes signals on, and ends all when one fails.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use torch_ext::Store;
use vlft_crds::contract::{TerminationReport, env, exit_code};

use super::cause::{End, first_cause, report_of};
use super::logs::{self, Output};
use super::place;
use crate::error::{Error, Result};
use crate::metrics::write_report;
use crate::parallel::Rendezvous;

/// Once a process has failed, how long the others may take to find out and say their last words.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// The running processes of this node.
struct Node {
    /// By local rank; `None` once ended.
    children: Vec<Option<Child>>,
    ends: Vec<End>,
    /// Where each leaves its report.
    reports: PathBuf,
    first_rank: i64,
    copies: Vec<std::thread::JoinHandle<()>>,
}

/// Runs `processes` of this program, each with its local rank in the environment.
pub(super) fn run(processes: i64, lookup: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    let first_rank = place::rank(processes, lookup)?.rank;
    let reports = std::env::temp_dir().join(format!("trainer-launch-{}", std::process::id()));
    std::fs::create_dir_all(&reports)
        .map_err(|cause| Error::storage("create", &reports, &cause))?;
    let asked = forward_to()?;
    let mut node = Node {
        children: Vec::new(),
        ends: Vec::new(),
        reports,
        first_rank,
        copies: Vec::new(),
    };
    let meeting = place::rendezvous(None, lookup)?;
    let store = meeting.serve.then(|| serve(&meeting, lookup)).transpose()?;
    let port = store.as_ref().map_or(meeting.port, Store::port);
    let shared = shared_environment(processes, port, lookup);
    let started = (0..processes).try_for_each(|local| node.start(local, &shared));
    let waited = started.map(|()| node.wait(&asked));
    node.kill();
    let outcome = waited.and_then(|()| node.conclude(lookup));
    let _ = std::fs::remove_dir_all(&node.reports);
    outcome
}

/// The store where all ranks meet, on any free port if nobody outside has to know it.
fn serve(meeting: &Rendezvous, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Store> {
    let alone = lookup(env::NUM_NODES).is_none_or(|nodes| nodes == "1");
    let port = if alone { 0 } else { meeting.port };
    Ok(Store::serve(port, meeting.timeout)?)
}

/// The last signal that asked this process to leave; 0 while there was none.
fn forward_to() -> Result<Arc<AtomicI32>> {
    let asked = Arc::new(AtomicI32::new(0));
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|cause| Error::Bug(format!("signals: {cause}")))?;
    let flag = Arc::clone(&asked);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            flag.store(signal, Ordering::Relaxed);
        }
    });
    Ok(asked)
}

/// What all processes get beside this one's environment.
fn shared_environment(
    processes: i64,
    port: u16,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Vec<(&'static str, String)> {
    let mut shared = vec![
        (env::PROCESSES_PER_NODE, processes.to_string()),
        (env::MASTER_PORT, port.to_string()),
    ];
    if lookup(env::NUM_THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as i64;
        shared.push((env::NUM_THREADS, (cores / processes).max(1).to_string()));
    }
    shared
}

impl Node {
    fn start(&mut self, local: i64, shared: &[(&str, String)]) -> Result<()> {
        let fail = |cause: std::io::Error| Error::Bug(format!("local rank {local}: {cause}"));
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command
            .args(std::env::args_os().skip(1))
            .envs(shared.iter().map(|(name, value)| (name, value)))
            .env(env::LOCAL_RANK, local.to_string())
            .env(env::TERMINATION_LOG, self.report_path(local))
            // Closes when this process is gone, however it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C reaches them through this process, once.
            .process_group(0);
        let mut child = command.spawn().map_err(fail)?;
        let rank = self.first_rank + local;
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        self.copies
            .extend(stdout.map(|from| logs::copy(rank, from, Output::Stdout)));
        self.copies
            .extend(stderr.map(|from| logs::copy(rank, from, Output::Stderr)));
        self.children.push(Some(child));
        Ok(())
    }

    fn report_path(&self, local: i64) -> PathBuf {
        self.reports.join(format!("{local}.json"))
    }

    /// Waits until all have ended, or the grace after a first failure is over.
    fn wait(&mut self, asked: &AtomicI32) {
        let mut deadline: Option<Instant> = None;
        let mut leaving = false;
        while self.children.iter().any(Option::is_some) {
            if let signal @ 1.. = asked.swap(0, Ordering::Relaxed) {
                leaving = true;
                self.signal(signal);
            }
            self.collect(leaving);
            if deadline.is_none() && self.ends.iter().any(|end| is_failure(end.code)) {
                deadline = Some(Instant::now() + GRACE);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.signal(rustix::process::Signal::KILL.as_raw());
                deadline = Some(Instant::now() + GRACE);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Takes down who has ended.
    fn collect(&mut self, leaving: bool) {
        for (local, slot) in (0..).zip(&mut self.children) {
            let status = slot
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            let Some(status) = status else { continue };
            *slot = None;
            let report = read_report(&self.reports.join(format!("{local}.json")));
            let code = code_of(status, leaving);
            self.ends.push(End {
                local_rank: local,
                code,
                report,
            });
        }
    }

    fn signal(&self, signal: i32) {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return;
        };
        for child in self.children.iter().flatten() {
            if let Some(pid) = Pid::from_raw(child.id() as i32) {
                // It may have ended in between.
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn kill(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for copy in self.copies.drain(..) {
            let _ = copy.join();
        }
    }

    /// One report and one result for all.
    fn conclude(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let Some(end) = first_cause(&self.ends) else {
            return Err(Error::Bug("no process was started".into()));
        };
        let mut report = report_of(end, self.first_rank + end.local_rank);
        // Rank 0 knows how far the run came.
        let zero = self.ends.iter().find(|end| end.local_rank == 0);
        if let Some(zero) = zero.and_then(|end| end.report.as_ref()) {
            report.progress = zero.progress.clone();
        }
        if let Some(log) = lookup(env::TERMINATION_LOG) {
            write_report(Path::new(&log), &report)?;
        }
        match end.code {
            exit_code::COMPLETED => Ok(()),
            code => Err(Error::of_exit_code(
                code,
                format!("rank {}: {}", report.rank, report.message),
            )),
        }
    }
}

fn is_failure(code: i32) -> bool {
    !matches!(code, exit_code::COMPLETED | exit_code::DRAINED)
}

/// Exit code, or 128 + signal; a process that a signal met before it could listen has left.
fn code_of(status: ExitStatus, leaving: bool) -> i32 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(SIGTERM | SIGINT)) if leaving => exit_code::DRAINED,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    }
}

fn read_report(path: &Path) -> Option<TerminationReport> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
