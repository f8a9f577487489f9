//! Asks rank 0 where it stands: one short `GET /progress` for each running VLFineTune.
//!
//! The answer comes from a pod, so it is bounded in size and time, redirects are not
//! followed, and nothing in it is trusted before [`sane`] has looked at it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use vlft_crds::contract::{METRICS_PORT, PROGRESS_MAX_BYTES, Progress, truncate_end};

use crate::jitter::jittered;

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval while a trainer has not made its first step: a person is watching.
const FIRST_STEPS_INTERVAL: Duration = Duration::from_secs(2);
/// Longest interval after failed polls.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// What was asked and answered, by UID of the VLFineTune.
#[derive(Debug)]
pub struct Polls {
    interval: Duration,
    by_uid: Mutex<HashMap<String, Poll>>,
}

#[derive(Debug, Clone)]
struct Poll {
    attempt: i64,
    next: Instant,
    failures: u32,
    latest: Option<Progress>,
}

impl Polls {
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            by_uid: Mutex::default(),
        }
    }

    /// Asks the pod if it is due; returns the latest answer of this attempt and the time
    /// until the next question.
    pub async fn refresh(
        &self,
        uid: &str,
        attempt: i64,
        ip: IpAddr,
    ) -> (Option<Progress>, Duration) {
        let known = self.lock().get(uid).cloned();
        let poll = match known {
            Some(poll) if poll.attempt == attempt && poll.next > Instant::now() => poll,
            known => {
                let latest = known.filter(|poll| poll.attempt == attempt);
                let asked = self.ask(attempt, ip, latest).await;
                self.lock().insert(uid.to_owned(), asked.clone());
                asked
            }
        };
        let left = poll.next.saturating_duration_since(Instant::now());
        (poll.latest, left)
    }

    /// The latest answer of an attempt.
    pub fn latest(&self, uid: &str, attempt: i64) -> Option<Progress> {
        let known = self.lock().get(uid).cloned()?;
        known.latest.filter(|_| known.attempt == attempt)
    }

    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    async fn ask(&self, attempt: i64, ip: IpAddr, before: Option<Poll>) -> Poll {
        let (failures, latest) = before
            .map(|poll| (poll.failures, poll.latest))
            .unwrap_or_default();
        let answer = timeout(ANSWER_TIMEOUT, fetch(ip, METRICS_PORT)).await;
        let answer = answer
            .map_err(anyhow::Error::from)
            .and_then(|answer| answer);
        let (failures, latest) = match answer {
            Ok(progress) if progress.attempt == attempt => (0, Some(progress)),
            Ok(other) => {
                tracing::debug!(%ip, attempt, other = other.attempt, "progress of another attempt");
                (failures + 1, latest)
            }
            Err(error) => {
                tracing::debug!(%ip, attempt, %error, "no progress");
                (failures + 1, latest)
            }
        };
        let interval = interval_after(self.interval, failures, latest.as_ref());
        Poll {
            attempt,
            next: Instant::now() + jittered(interval),
            failures,
            latest,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Poll>> {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn interval_after(usual: Duration, failures: u32, latest: Option<&Progress>) -> Duration {
    match latest {
        Some(progress) if progress.step > 0 => usual
            .saturating_mul(1 << failures.min(4))
            .min(LONGEST_INTERVAL.max(usual)),
        _ => usual.min(FIRST_STEPS_INTERVAL.saturating_mul(1 << failures.min(2))),
    }
}

/// One `GET /progress`.
async fn fetch(ip: IpAddr, port: u16) -> anyhow::Result<Progress> {
    let stream = TcpStream::connect((ip, port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let request = hyper::Request::get("/progress")
            .header(hyper::header::HOST, ip.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        anyhow::ensure!(
            response.status().is_success(),
            "answered {}",
            response.status()
        );
        let body = Limited::new(response.into_body(), PROGRESS_MAX_BYTES)
            .collect()
            .await;
        let bytes = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok(sane(serde_json::from_slice(&bytes)?))
    }
    .await;
    connection.abort();
    answer
}

/// Brings an answer within the bounds of what status may hold.
pub fn sane(mut progress: Progress) -> Progress {
    truncate_end(&mut progress.phase, 32);
    progress.step = progress.step.max(0);
    progress.total_steps = progress.total_steps.max(0);
    let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
    progress.loss = finite(progress.loss);
    progress.learning_rate = finite(progress.learning_rate);
    progress.tokens_per_second = finite(progress.tokens_per_second);
    progress.images_per_second = finite(progress.images_per_second);
    progress.eta_seconds = finite(progress.eta_seconds).filter(|eta| *eta >= 0.0);
    if let Some(resumed) = &mut progress.resumed_from {
        truncate_end(&mut resumed.digest, 128);
    }
    if let Some(checkpoint) = &mut progress.last_checkpoint {
        truncate_end(&mut checkpoint.digest, 128);
        truncate_end(&mut checkpoint.path, 512);
        truncate_end(&mut checkpoint.time, 64);
    }
    progress
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves one answer, whatever is asked; returns its port.
    async fn serve(answer: String) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        port
    }

    fn response(head: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    async fn fetched(answer: String) -> anyhow::Result<Progress> {
        let port = serve(answer).await;
        fetch(IpAddr::from([127, 0, 0, 1]), port).await
    }

    #[tokio::test]
    async fn reads_what_rank_zero_says() {
        let body = r#"{"attempt": 2, "step": 7, "totalSteps": 10, "loss": 0.5}"#;
        let progress = fetched(response("200 OK", body)).await.unwrap();
        assert_eq!(
            (progress.attempt, progress.step, progress.loss),
            (2, 7, Some(0.5))
        );
    }

    #[tokio::test]
    async fn refuses_redirects_floods_and_nonsense() {
        let moved = "302 Found\r\nlocation: http://169.254.169.254/";
        let flood = format!("{{\"phase\": \"{}\"}}", "x".repeat(PROGRESS_MAX_BYTES));
        for answer in [
            response(moved, "{}"),
            response("200 OK", &flood),
            response("200 OK", "<html>"),
        ] {
            assert!(fetched(answer).await.is_err());
        }
    }

    #[test]
    fn nothing_unbounded_or_infinite_passes() {
        let progress = sane(Progress {
            phase: "x".repeat(1000),
            step: -1,
            loss: Some(f64::NAN),
            eta_seconds: Some(-5.0),
            ..Progress::default()
        });
        assert_eq!((progress.phase.len(), progress.step), (32, 0));
        assert_eq!((progress.loss, progress.eta_seconds), (None, None));
    }

    #[test]
    fn asks_often_at_first_and_seldom_when_nobody_answers() {
        let usual = Duration::from_secs(10);
        let running = Progress {
            step: 3,
            ..Progress::default()
        };
        let seconds = |failures, latest| interval_after(usual, failures, latest).as_secs();
        assert_eq!(seconds(0, None), 2);
        assert_eq!(seconds(9, None), 8);
        assert_eq!(seconds(0, Some(&running)), 10);
        assert_eq!(seconds(9, Some(&running)), 60);
    }
}
