use anyhow::{Result, anyhow};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

const PERIOD: Duration = Duration::from_millis(250);

/// Calls `attempt` until it returns a value, and returns that.
///
/// An attempt that fails is tried again, since the API server may be busy or restarting; what it
/// said last is part of the error when the time is over. An attempt that hangs does not outlive it.
pub async fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut attempt: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut last = String::from("no attempt ended");
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last = "not yet".into(),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if Instant::now() + PERIOD > deadline {
            return Err(anyhow!("waited {} s for {what}: {last}", timeout.as_secs()));
        }
        sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_returns_the_first_value() {
        let mut calls = 0;
        let value = wait_for("three calls", Duration::from_secs(10), async || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn it_ends_with_the_last_reason_even_when_an_attempt_hangs() {
        let failing = wait_for::<()>("it", Duration::from_millis(400), async || {
            Err(anyhow!("broken"))
        });
        assert!(failing.await.unwrap_err().to_string().contains("broken"));
        let hanging = wait_for::<()>("it", Duration::from_millis(400), async || {
            std::future::pending::<()>().await;
            Ok(None)
        });
        assert!(hanging.await.is_err());
    }
}
