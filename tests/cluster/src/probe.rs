//! Waiting, and asking whether things answer.

use crate::layout::API_SERVICE;
use anyhow::{Context, Result, bail, ensure};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by Ctrl-C or SIGTERM.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("cannot catch signals")?;
        }
        Ok(Self(flag))
    }

    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// Calls `attempt` until it succeeds; its last error is the reason when it does not in time.
pub fn until<T>(
    interrupt: &Interrupt,
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        interrupt.check()?;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}: not within {} s", timeout.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(150)),
        }
    }
}

const NAME: &str = "kubernetes.default.svc.cluster.local";

/// Asks `server` for the address of the API server's service.
pub fn dns(server: Ipv4Addr) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket
        .send_to(&query(), (server, 53))
        .with_context(|| format!("cannot reach {server}"))?;
    let mut answer = [0_u8; 512];
    let length = socket
        .recv(&mut answer)
        .with_context(|| format!("no answer from {server}"))?;
    let answer = answer.get(..length).unwrap_or_default();
    let expected: Ipv4Addr = API_SERVICE.parse()?;
    if !answer.ends_with(&expected.octets()) {
        bail!("{server} does not know {NAME}");
    }
    Ok(())
}

/// A question for the A record of NAME (RFC 1035, section 4.1), without EDNS, so that the answer
/// ends with the address.
fn query() -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        packet.extend(label.bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_one_question() {
        let packet = query();
        assert_eq!(packet.get(4..6), Some([0, 1].as_slice()));
        assert_eq!(packet.len(), 12 + NAME.len() + 2 + 4);
    }

    #[test]
    fn a_wait_ends_with_the_last_reason() {
        let interrupt = Interrupt(Arc::default());
        let error = until(&interrupt, "x", Duration::ZERO, || -> Result<()> {
            bail!("because")
        });
        assert_eq!(
            format!("{:#}", error.unwrap_err()),
            "x: not within 0 s: because"
        );
    }
}
