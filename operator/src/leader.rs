//! Leader election over a Lease. One replica reconciles; the others stand by.
//!
//! A holder is believed as long as its record keeps changing, measured by the observer's own
//! monotonic clock: clocks of different machines are never compared. A leader that could not
//! renew in time stops to write before anyone else may take over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};

use crate::jitter::jittered;

/// How long a silent holder is believed.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a holder goes on without a successful renewal; shorter than the lease, so that
/// it has stopped when another takes over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Whether this process may write.
#[derive(Debug)]
pub struct Leadership {
    held_until: Mutex<Option<Instant>>,
    always: bool,
}

impl Leadership {
    /// Nobody else is there.
    pub fn alone() -> Self {
        Self {
            held_until: Mutex::new(None),
            always: true,
        }
    }

    /// Not yet.
    pub fn standby() -> Self {
        Self {
            held_until: Mutex::new(None),
            always: false,
        }
    }

    pub fn is_held(&self) -> bool {
        let until = *self
            .held_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.always || until.is_some_and(|until| until > Instant::now())
    }

    fn extend(&self, until: Instant) {
        *self
            .held_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// One candidate for a Lease.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// What a look at the Lease leads to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take,
    Renew,
    Wait,
}

/// The holder's record as last seen to change.
#[derive(Debug)]
struct Sighting {
    record: Option<LeaseSpec>,
    at: Instant,
}

impl Election {
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self {
            api,
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Waits until this candidate holds the Lease.
    pub async fn acquire(&self, leadership: &Leadership) {
        let mut seen = Sighting {
            record: None,
            at: Instant::now(),
        };
        loop {
            let started = Instant::now();
            match timeout(RENEW_DEADLINE, self.try_once(&mut seen)).await {
                Ok(Ok(true)) => {
                    leadership.extend(started + RENEW_DEADLINE);
                    tracing::info!(lease = self.name, identity = self.identity, "leading");
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot look at the lease"),
                Err(_) => tracing::warn!("looking at the lease timed out"),
            }
            sleep(jittered(RETRY_PERIOD)).await;
        }
    }

    /// Renews the Lease; returns only when it is lost.
    pub async fn keep(&self, leadership: &Leadership) -> anyhow::Result<()> {
        let mut renewed = Instant::now();
        let mut seen = Sighting {
            record: None,
            at: renewed,
        };
        loop {
            sleep(RETRY_PERIOD).await;
            let started = Instant::now();
            let left = (renewed + RENEW_DEADLINE).saturating_duration_since(started);
            match timeout(left, self.try_once(&mut seen)).await {
                Ok(Ok(true)) => {
                    renewed = started;
                    leadership.extend(renewed + RENEW_DEADLINE);
                }
                Ok(Ok(false)) => bail!("the lease `{}` was taken by another replica", self.name),
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease"),
                Err(_) => bail!("the lease `{}` could not be renewed in time", self.name),
            }
        }
    }

    /// Gives the Lease back, so that another replica need not wait for it to run out.
    pub async fn release(&self) -> anyhow::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }

    /// One look and at most one write; whether the Lease is held now.
    async fn try_once(&self, seen: &mut Sighting) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        let record = lease
            .as_ref()
            .map(|lease| lease.spec.clone().unwrap_or_default());
        if record != seen.record {
            *seen = Sighting {
                record: record.clone(),
                at: Instant::now(),
            };
        }
        let step = next_step(record.as_ref(), seen.at.elapsed(), &self.identity);
        if step == Step::Wait {
            return Ok(false);
        }
        let next = self.lease(lease, &step, MicroTime(Timestamp::now()));
        let params = PostParams::default();
        let written = match step {
            Step::Create => self.api.create(&params, &next).await,
            _ => self.api.replace(&self.name, &params, &next).await,
        };
        match written {
            Ok(_) => Ok(true),
            // Someone else was faster, or wrote in between: look again.
            Err(kube::Error::Api(status)) if status.code == 409 => match step {
                Step::Renew => Err(kube::Error::Api(status)),
                _ => Ok(false),
            },
            Err(error) => Err(error),
        }
    }

    fn lease(&self, old: Option<Lease>, step: &Step, now: MicroTime) -> Lease {
        let mut lease = old.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_default();
        if *step != Step::Renew {
            spec.acquire_time = Some(now.clone());
            let transitions = spec.lease_transitions.map_or(0, |n| n.saturating_add(1));
            spec.lease_transitions = Some(transitions);
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(LEASE_DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

/// What to do about a record that has not changed for `unchanged`.
fn next_step(record: Option<&LeaseSpec>, unchanged: Duration, identity: &str) -> Step {
    let Some(record) = record else {
        return Step::Create;
    };
    match record.holder_identity.as_deref() {
        Some(holder) if holder == identity => Step::Renew,
        None | Some("") => Step::Take,
        Some(_) => {
            let seconds = record.lease_duration_seconds.unwrap_or(0).max(0);
            let duration = Duration::from_secs(u64::from(seconds.unsigned_abs()));
            if unchanged > duration {
                Step::Take
            } else {
                Step::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_has_stood_still() {
        let seconds = Duration::from_secs;
        for (record, unchanged, step) in [
            (None, 0, Step::Create),
            (Some(record("me")), 100, Step::Renew),
            (Some(record("")), 0, Step::Take),
            (Some(LeaseSpec::default()), 0, Step::Take),
            (Some(record("other")), 0, Step::Wait),
            (Some(record("other")), 15, Step::Wait),
            (Some(record("other")), 16, Step::Take),
        ] {
            assert_eq!(
                next_step(record.as_ref(), seconds(unchanged), "me"),
                step,
                "{record:?}"
            );
        }
    }

    #[test]
    fn leadership_runs_out_by_itself() {
        let leadership = Leadership::standby();
        assert!(!leadership.is_held());
        leadership.extend(Instant::now() + Duration::from_secs(60));
        assert!(leadership.is_held());
        leadership.extend(Instant::now());
        assert!(!leadership.is_held());
        assert!(Leadership::alone().is_held());
    }
}
