//! A real Prometheus beside the cluster. It learns of pods from target files, and reaches them through the API server (`kubectl proxy`), so that it needs neither a route into
//! the pod network nor the kubeconfig's credentials.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use vlft_crds::contract::{METRICS_PORT_NAME, label};

use crate::chart;
use crate::targets::{Discovery, Pods};

/// A Prometheus that ends when it is dropped.
pub struct Prometheus {
    /// Prometheus, then the proxy it scrapes through: dropped in this order.
    _processes: [Process; 2],
    /// Keep the target files up to date.
    _discoveries: [Discovery; 2],
    address: String,
    folder: tempfile::TempDir,
}

/// A child that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes every second: the trainer pods of `namespace`, the operator's
    /// pods, and the `extra` addresses; it evaluates the chart's alerts.
    ///
    /// # Errors
    /// When it does not become ready within 30 s, with its log.
    pub fn start(namespace: &str, extra: &[SocketAddr]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (proxy, server) = api_proxy()?;
        let address = free_address()?.to_string();
        let files = ["trainers", "operator"].map(|name| folder.path().join(format!("{name}.json")));
        let discoveries = discoveries(namespace, &server, &files)?;
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "5s"},
            "rule_files": [chart::folder().join("alerts/vlfinetune.yaml")],
            "scrape_configs": [
                pods_job("trainers", &files[0]),
                pods_job("operator", &files[1]),
                {"job_name": "recorded", "static_configs": [{"targets": extra}]},
                {"job_name": "prometheus", "static_configs": [{"targets": [&address]}]},
            ],
        });
        // JSON is YAML.
        fs::write(folder.path().join("prometheus.yaml"), config.to_string())?;
        let process = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.path().join("prometheus.yaml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .env("NO_PROXY", "*")
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()
            .context("cannot start prometheus; run scripts/apt.sh metrics")?;
        let started = Self {
            _processes: [Process(process), proxy],
            _discoveries: discoveries,
            address,
            folder,
        };
        started.wait_until_ready()?;
        Ok(started)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.query("vector(1)").is_err() {
            if Instant::now() > deadline {
                bail!("prometheus did not become ready; its log:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// The samples an expression has now.
    ///
    /// # Errors
    /// When Prometheus refuses it, with its message.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let mut command = Command::new("promtool");
        command.args(["query", "instant", "--format=json"]);
        command
            .arg(format!("http://{}", self.address))
            .arg(expression);
        let printed = chart::run(command.env("NO_PROXY", "*"))?;
        let answer: Value = serde_json::from_str(&printed).context("promtool prints no JSON")?;
        Ok(answer.as_array().cloned().unwrap_or_default())
    }

    /// What it has logged: for messages.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// `kubectl proxy` on a free port, and its address: the API server without credentials.
fn api_proxy() -> Result<(Process, String)> {
    let mut command = chart::kubectl();
    command
        .args(["proxy", "--port=0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("kubectl has no output")?;
    let process = Process(child);
    BufReader::new(stdout).read_line(&mut line)?;
    // Starting to serve on 127.0.0.1:43581
    let address = line.trim().rsplit(' ').next().unwrap_or_default();
    ensure!(
        address.parse::<SocketAddr>().is_ok(),
        "kubectl proxy does not serve: {line}"
    );
    Ok((process, address.to_owned()))
}

/// Finds the trainers of `namespace` and the operator, wherever it is.
fn discoveries(namespace: &str, server: &str, files: &[PathBuf; 2]) -> Result<[Discovery; 2]> {
    let trainers = Pods {
        label: label::ROLE,
        value: label::ROLE_TRAINER,
        port: METRICS_PORT_NAME,
        namespace: Some(namespace.to_owned()),
    };
    let operator = Pods {
        label: "app.kubernetes.io/name",
        value: "vlfinetune-operator",
        port: "http",
        namespace: None,
    };
    Ok([
        Discovery::start(trainers, server.to_owned(), files[0].clone())?,
        Discovery::start(operator, server.to_owned(), files[1].clone())?,
    ])
}

/// A scrape job for the pods of a target file.
fn pods_job(name: &str, file: &Path) -> Value {
    json!({"job_name": name, "file_sd_configs": [{"files": [file], "refresh_interval": "1s"}]})
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Serves a recorded exposition at any path until the test ends.
///
/// # Errors
/// When the file cannot be read or no port is free.
pub fn serve_recorded(file: &Path) -> Result<SocketAddr> {
    let body = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0_u8; 4096];
            // One read takes in a scrape's whole request; what it asks for does not matter.
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    Ok(address)
}
