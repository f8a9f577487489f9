//! `/metrics`, `/progress` and `/healthz` over HTTP.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use prometheus::{Registry, TextEncoder};
use tiny_http::{Header, Method, Request, Response};
use vlft_crds::contract::{PROGRESS_MAX_BYTES, Progress};

use crate::error::{Error, Result};

/// What the run publishes and the server shows; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<Mutex<Progress>>);

impl Published {
    /// Changes the progress in one go: a reader sees all of it or nothing.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn progress(&self) -> Progress {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Serves from a thread of its own until dropped.
pub struct Server {
    http: Arc<tiny_http::Server>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` of all addresses; 0 takes a free one.
    pub fn start(port: u16, registry: Registry, published: Published) -> Result<Self> {
        // `[::]` takes IPv4 too, unless the machine has no IPv6 at all.
        let http = tiny_http::Server::http(("::", port))
            .or_else(|_| tiny_http::Server::http(("0.0.0.0", port)))
            .map_err(|cause| {
                Error::User(format!("cannot serve metrics on port {port}: {cause}"))
            })?;
        let http = Arc::new(http);
        let served = Arc::clone(&http);
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(move || {
                for request in served.incoming_requests() {
                    answer(request, &registry, &published);
                }
            })
            .map_err(|cause| Error::Bug(format!("no thread: {cause}")))?;
        Ok(Self {
            http,
            thread: Some(thread),
        })
    }

    /// The port in use.
    pub fn port(&self) -> Option<u16> {
        self.http
            .server_addr()
            .to_ip()
            .map(|address| address.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.http.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(request: Request, registry: &Registry, published: &Published) {
    let (status, content_type, body) = match (request.method(), request.url()) {
        (Method::Get, "/metrics") => metrics(registry),
        (Method::Get, "/progress") => progress(published),
        (Method::Get, "/healthz") => (200, "text/plain", "ok\n".to_owned()),
        (Method::Get, _) => (404, "text/plain", "not found\n".to_owned()),
        _ => (405, "text/plain", "only GET\n".to_owned()),
    };
    let header = format!("Content-Type: {content_type}").parse::<Header>();
    let response = Response::from_string(body).with_status_code(status);
    let response = header.into_iter().fold(response, Response::with_header);
    // A client that has gone away needs no answer.
    let _ = request.respond(response);
}

fn metrics(registry: &Registry) -> (u16, &'static str, String) {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => (200, prometheus::TEXT_FORMAT, text),
        Err(cause) => (500, "text/plain", format!("{cause}\n")),
    }
}

fn progress(published: &Published) -> (u16, &'static str, String) {
    match serde_json::to_string(&published.progress()) {
        Ok(json) if json.len() <= PROGRESS_MAX_BYTES => (200, "application/json", json),
        Ok(_) => (500, "text/plain", "progress is too long\n".to_owned()),
        Err(cause) => (500, "text/plain", format!("{cause}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use vlft_crds::contract::CheckpointReport;

    use super::*;
    use crate::metrics::{Labels, TrainerMetrics};

    fn get(port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect(("localhost", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn serves_metrics_progress_and_health() {
        let registry = Registry::new();
        let metrics = TrainerMetrics::new(&registry, &Labels::default()).unwrap();
        metrics.tokens.inc_by(42);
        let published = Published::default();
        let server = Server::start(0, registry, published.clone()).unwrap();
        let port = server.port().unwrap();
        published.update(|progress| progress.step = 7);
        let body = |path| {
            let answer = get(port, path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            answer.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        assert!(body("/metrics").contains("vlft_trainer_tokens_total{attempt=\"0\""));
        assert_eq!(body("/healthz"), "ok\n");
        let progress: Progress = serde_json::from_str(&body("/progress")).unwrap();
        assert_eq!(progress.step, 7);
        assert!(get(port, "/other").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn the_longest_progress_fits() {
        let long = Progress {
            attempt: i64::MIN,
            phase: "Checkpointing".into(),
            loss: Some(f64::MIN_POSITIVE),
            last_checkpoint: Some(CheckpointReport {
                // Namespace 63, name 40, uid 36 and the folders below them.
                path: "x".repeat(200),
                digest: "f".repeat(64),
                ..CheckpointReport::default()
            }),
            ..Progress::default()
        };
        let published = Published::default();
        published.update(|progress| *progress = long);
        assert_eq!(progress(&published).0, 200);
    }
}
