//! What PID 1 does: starts the components, restarts those that end, reaps orphans.

use crate::daemons::Daemon;
use crate::layout::{API_PORT, CONTROL_PLANE, Layout};
use crate::tools::PATH;
use anyhow::{Context, Result};
use rustix::process::{WaitOptions, WaitStatus, wait};
use std::collections::HashMap;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(100);
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The components and which of them run.
struct Supervisor<'a> {
    layout: &'a Layout,
    daemons: &'a [Daemon],
    /// Process id to index in `daemons`.
    running: HashMap<i32, usize>,
    /// When to start each one that is not running.
    due: HashMap<usize, Instant>,
    api_listens: bool,
}

/// Never returns while the cluster lives.
pub fn run(layout: &Layout, daemons: &[Daemon]) -> Result<()> {
    let now = Instant::now();
    let due = (0..daemons.len()).map(|index| (index, now)).collect();
    let mut supervisor = Supervisor {
        layout,
        daemons,
        running: HashMap::new(),
        due,
        api_listens: false,
    };
    loop {
        supervisor.reap();
        supervisor.start_due()?;
        std::thread::sleep(TICK);
    }
}

impl Supervisor<'_> {
    /// Collects every child that ended: components, and orphans such as shims.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(index) = self.running.remove(&pid.as_raw_nonzero().get()) else {
                continue;
            };
            self.due.insert(index, Instant::now() + RESTART_DELAY);
            if let Some(daemon) = self.daemons.get(index) {
                eprintln!("{} {}; it will be restarted", daemon.name, ending(status));
            }
        }
    }

    fn start_due(&mut self) -> Result<()> {
        self.api_listens = self.api_listens || api_listens();
        let now = Instant::now();
        let mut ready: Vec<usize> = self
            .due
            .iter()
            .filter(|(_, when)| **when <= now)
            .map(|(index, _)| *index)
            .collect();
        ready.sort_unstable();
        for index in ready {
            let Some(daemon) = self.daemons.get(index) else {
                continue;
            };
            if daemon.needs_api && !self.api_listens {
                continue;
            }
            let pid = spawn(self.layout, daemon)?;
            eprintln!("{} started as process {pid}", daemon.name);
            self.due.remove(&index);
            self.running.insert(pid, index);
        }
        Ok(())
    }
}

fn ending(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

fn api_listens() -> bool {
    let Ok(address) = format!("{CONTROL_PLANE}:{API_PORT}").parse::<SocketAddr>() else {
        return false;
    };
    TcpStream::connect_timeout(&address, TICK).is_ok()
}

/// Starts a component with its own log, environment and process group (so that an interrupt at
/// the terminal does not reach it).
fn spawn(layout: &Layout, daemon: &Daemon) -> Result<i32> {
    let log = append(&layout.logs().join(format!("{}.log", daemon.name)))?;
    let enter = daemon.netns.iter().map(|netns| format!("--net={netns}"));
    let mut words: Vec<String> = daemon.command.clone();
    if daemon.netns.is_some() {
        words = std::iter::once("nsenter".to_owned())
            .chain(enter)
            .chain(["--".into()])
            .chain(words)
            .collect();
    }
    let (program, arguments) = words
        .split_first()
        .context("a component without a command")?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs([("PATH", PATH), ("HOME", "/root")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", daemon.name))?;
    // `child` is dropped: `reap` waits for it.
    Ok(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn append(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}
