//! `cluster up`.

use crate::cgroup::Cgroups;
use crate::init::KEEP;
use crate::layout::{CLUSTER_DNS, Layout, Node};
use crate::probe::{Interrupt, until};
use crate::record::Record;
use crate::{down, load, network, tools};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(120);

/// Brings the cluster up. Whatever goes wrong, or Ctrl-C, takes it down again; its logs stay.
pub fn up(layout: &Layout, nodes: u8) -> Result<()> {
    tools::require(layout)?;
    let interrupt = Interrupt::install()?;
    let _lock = down::lock(layout)?;
    let began = Instant::now();
    down::clean(layout)?;
    println!(
        "cluster {}: starting a control plane and {nodes} nodes",
        layout.name
    );
    if let Err(error) = bring_up(layout, nodes, &interrupt) {
        println!("cluster {}: taking it down again", layout.name);
        down::clean(layout)?;
        return Err(error.context(format!("logs are in {}", layout.logs().display())));
    }
    println!(
        "cluster {}: ready after {:.1} s",
        layout.name,
        began.elapsed().as_secs_f32()
    );
    println!("export KUBECONFIG={}", layout.kubeconfig().display());
    Ok(())
}

fn bring_up(layout: &Layout, count: u8, interrupt: &Interrupt) -> Result<()> {
    let nodes = Node::all(count);
    let link = network::free_link(&layout.name)?;
    let _ = fs::remove_dir_all(layout.logs());
    fs::create_dir_all(layout.logs())
        .with_context(|| format!("cannot create {}", layout.logs().display()))?;
    let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
    let cgroups = Cgroups::of(&layout.cgroup())?;
    cgroups.create(&names)?;
    let mut init = start_init(layout, &cgroups, count, &link.1)?;
    let (stdin, mut said) = pipes(&mut init)?;
    let pid = expect(layout, &mut said, "pid ")?
        .parse()
        .context("not a process id")?;
    network::attach(&layout.host_link(), pid, &link.0, &link.1)?;
    expect(layout, &mut said, "prepared")?;
    let record = Record::new(layout, pid, link, nodes)?;
    record.save(layout)?;
    wait_until_ready(layout, &record, interrupt)?;
    keep(stdin)
}

/// Starts PID 1. The shell puts itself into the tracking cgroup first, so that no process of the
/// cluster is ever outside of it.
fn start_init(layout: &Layout, cgroups: &Cgroups, nodes: u8, host_side: &str) -> Result<Child> {
    let procs = cgroups.tracking()?.join("cgroup.procs");
    let log = layout.logs().join("init.log");
    let log = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    Command::new("sh")
        .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
        .arg(procs)
        .args([
            "unshare",
            "--pid",
            "--mount",
            "--net",
            "--fork",
            "--kill-child",
            "--",
        ])
        .arg(std::env::current_exe().context("cannot find this program")?)
        .args([
            "--name",
            &layout.name,
            "init",
            "--nodes",
            &nodes.to_string(),
        ])
        .args(["--host-side", host_side])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start the cluster's first process")
}

fn pipes(init: &mut Child) -> Result<(ChildStdin, BufReader<ChildStdout>)> {
    let stdin = init.stdin.take().context("no pipe to the first process")?;
    let stdout = init
        .stdout
        .take()
        .context("no pipe from the first process")?;
    Ok((stdin, BufReader::new(stdout)))
}

/// What `init` says after `prefix`; when it ends instead, why.
fn expect(layout: &Layout, said: &mut impl BufRead, prefix: &str) -> Result<String> {
    let mut line = String::new();
    said.read_line(&mut line)
        .context("cannot hear the first process")?;
    if line.is_empty() {
        let log = fs::read_to_string(layout.logs().join("init.log")).unwrap_or_default();
        bail!("the first process ended: {}", log.trim());
    }
    let rest = line.trim().strip_prefix(prefix);
    rest.map(str::to_owned)
        .with_context(|| format!("unexpected {line:?} from the first process"))
}

/// From now on the cluster outlives this command.
fn keep(mut stdin: ChildStdin) -> Result<()> {
    stdin
        .write_all(KEEP)
        .context("the cluster's first process is gone")
}

fn wait_until_ready(layout: &Layout, record: &Record, interrupt: &Interrupt) -> Result<()> {
    let go_on = || {
        interrupt
            .check()
            .and_then(|()| ensure_alive(layout, record))
    };
    until(interrupt, "container runtimes", TIMEOUT, || {
        ensure_alive(layout, record)?;
        load::import(record, &layout.image("pause"))
    })?;
    tools::run_while(&mut tools::wait_ready(layout), go_on)?;
    println!(
        "cluster {}: API server at {}",
        layout.name,
        record.api_server()
    );
    let addons = layout.config().join("addons.yaml");
    until(interrupt, "addons", TIMEOUT, || {
        let mut apply = tools::kubectl(layout);
        tools::run(
            apply
                .args(["apply", "--server-side", "--validate=ignore", "-f"])
                .arg(&addons),
        )
    })?;
    let nodes = record.nodes.len().to_string();
    tools::run_while(tools::wait_ready(layout).args(["--nodes", &nodes]), go_on)?;
    for node in &record.nodes {
        let what = format!("cluster DNS on {}", node.name);
        until(interrupt, &what, TIMEOUT, || {
            let mut probe = network::enter(&record.netns(Some(node)), &this_program()?);
            tools::run(probe.args(["probe-dns", CLUSTER_DNS]))
        })?;
    }
    Ok(())
}

fn this_program() -> Result<String> {
    let path = std::env::current_exe().context("cannot find this program")?;
    Ok(path.display().to_string())
}

fn ensure_alive(layout: &Layout, record: &Record) -> Result<()> {
    let log = || fs::read_to_string(layout.logs().join("init.log")).unwrap_or_default();
    ensure!(record.alive(), "the first process ended: {}", log().trim());
    Ok(())
}
