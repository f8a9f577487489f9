//! What PID 1 does: starts the components, restarts those that end, reaps orphans.

use crate::daemons::{After, Daemon};
use crate::layout::{API_PORT, CONTROL_PLANE, Layout};
use crate::tools::{self, PATH};
use anyhow::{Context, Result};
use rustix::process::{WaitOptions, WaitStatus, wait};
use std::collections::HashMap;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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
    api: Api,
}

/// How far the API server is: it listens first, and some time later it is ready.
#[derive(Default)]
struct Api {
    listens: bool,
    ready: bool,
    /// Process that waits for it to be ready, while one does.
    probe: Option<i32>,
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
        api: Api::default(),
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
            let pid = pid.as_raw_nonzero().get();
            if self.api.probe == Some(pid) {
                self.api.probe = None;
                self.api.ready = status.exit_status() == Some(0);
            }
            let Some(index) = self.running.remove(&pid) else {
                continue;
            };
            self.due.insert(index, Instant::now() + RESTART_DELAY);
            if let Some(daemon) = self.daemons.get(index) {
                eprintln!("{} {}; it will be restarted", daemon.name, ending(status));
            }
        }
    }

    fn look_at_api(&mut self) -> Result<()> {
        self.api.listens = self.api.listens || api_listens();
        if self.api.listens && !self.api.ready && self.api.probe.is_none() {
            self.api.probe = Some(ask_ready(self.layout)?);
        }
        Ok(())
    }

    fn start_due(&mut self) -> Result<()> {
        self.look_at_api()?;
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
            let may_start = match daemon.after {
                After::Nothing => true,
                After::ApiListens => self.api.listens,
                After::ApiReady => self.api.ready,
            };
            if !may_start {
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

/// Starts a process that ends when the API server is ready.
fn ask_ready(layout: &Layout) -> Result<i32> {
    let child = tools::wait_ready(layout)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start cluster-wait")?;
    Ok(id(&child))
}

/// `child` is then dropped without waiting for it: `reap` does that.
fn id(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or(i32::MAX)
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
    Ok(id(&child))
}

fn append(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}
