//! One VLFineTune at a time: observe -> validate -> decide -> build -> apply -> update_status.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use vlft_crds::VLFineTune;

use crate::jitter::jittered;
use crate::leader::Leadership;
use crate::metrics::Metrics;

mod apply;
mod build;
mod decide;
mod error;
mod events;
mod gpus;
mod observe;
mod policy;
pub mod queue;
mod status;
mod unreadable;
mod update_status;
mod validate;
mod writes;

pub use decide::Settings;
pub use error::Error;
use gpus::GpuLabels;
use observe::children::{Children, Key};
use observe::progress::Polls;
use observe::{AttemptJob, TrainerPod};
pub use validate::Defaults;
use writes::Writes;

/// A VLFineTune, or why it could not be read: one broken object must not stop the watch.
pub type Guarded = DeserializeGuard<VLFineTune>;

/// Longest reconciliation; everything in it can be repeated.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);
/// A look without any event, should one ever be missed.
const RESYNC: Duration = Duration::from_secs(600);
/// Bounds of the pause after an error.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(120);
/// Pause after a conflict: the watch has the newer object in a moment.
const CONFLICT_RETRY: Duration = Duration::from_millis(100);

/// Children of all VLFineTunes, as the watches have them.
#[derive(Debug, Default)]
pub struct ChildCaches {
    pub jobs: Children<AttemptJob>,
    pub pods: Children<TrainerPod>,
}

impl ChildCaches {
    /// Forgets deleted children of other resources and attempts of the same name.
    fn forget_before(&self, key: &Key, uid: &str, attempt: i64) {
        self.jobs.forget_gone(key, |_| false);
        self.pods.forget_gone(key, |pod| {
            pod.belongs_to(uid) && pod.attempt() == Some(attempt)
        });
    }

    fn forget(&self, key: &Key) {
        self.jobs.forget_gone(key, |_| false);
        self.pods.forget_gone(key, |_| false);
    }

    pub fn are_synced(&self) -> bool {
        self.jobs.is_synced() && self.pods.is_synced()
    }
}

/// What every reconciliation shares.
pub struct Context {
    pub client: Client,
    /// Namespace that is watched; absent means all.
    pub namespace: Option<String>,
    pub identity: String,
    pub settings: Settings,
    pub defaults: Defaults,
    /// Shortest time between two writes of mere progress.
    pub progress_write_interval: Duration,
    pub children: Arc<ChildCaches>,
    pub polls: Polls,
    pub leadership: Arc<Leadership>,
    pub metrics: Arc<Metrics>,
    gpus: GpuLabels,
    writes: Writes,
    failures: Mutex<HashMap<String, u32>>,
}

/// What [`Context::new`] takes.
pub struct Parts {
    pub client: Client,
    pub namespace: Option<String>,
    pub identity: String,
    pub settings: Settings,
    pub defaults: Defaults,
    pub progress_interval: Duration,
    pub children: Arc<ChildCaches>,
    pub leadership: Arc<Leadership>,
    pub metrics: Arc<Metrics>,
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        Self {
            client: parts.client,
            namespace: parts.namespace,
            identity: parts.identity,
            settings: parts.settings,
            defaults: parts.defaults,
            progress_write_interval: parts.progress_interval.mul_f64(1.5),
            children: parts.children,
            polls: Polls::new(parts.progress_interval),
            leadership: parts.leadership,
            metrics: parts.metrics,
            gpus: GpuLabels::default(),
            writes: Writes::default(),
            failures: Mutex::default(),
        }
    }

    /// Objects of one kind in the resource's namespace.
    fn api<K>(&self, finetune: &VLFineTune) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(
            self.client.clone(),
            &finetune.namespace().unwrap_or_default(),
        )
    }

    /// Forgets all about a deleted resource.
    fn forget(&self, key: &Key, uid: &str) {
        self.children.forget(key);
        self.polls.forget(uid);
        self.writes.forget(uid);
        self.lock_failures().remove(uid);
    }

    fn lock_failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// Reconciles one VLFineTune.
pub async fn reconcile(guarded: Arc<Guarded>, ctx: Arc<Context>) -> Result<Action, Error> {
    let timer = ctx.metrics.start_reconcile();
    let work = async {
        match &guarded.0 {
            Ok(finetune) => steps(&ctx, finetune).await,
            Err(invalid) => unreadable::reject(&ctx, invalid).await,
        }
    };
    let result = tokio::time::timeout(RECONCILE_TIMEOUT, work).await;
    let result = result.unwrap_or(Err(Error::TimedOut));
    timer.finish(result.as_ref().err());
    if result.is_ok() {
        ctx.lock_failures()
            .remove(guarded.meta().uid.as_deref().unwrap_or_default());
    }
    result
}

async fn steps(ctx: &Context, finetune: &VLFineTune) -> Result<Action, Error> {
    ctx.children.jobs.wait_until_synced().await;
    ctx.children.pods.wait_until_synced().await;
    if !ctx.writes.is_current(&finetune.metadata) {
        // Our own last write is on its way through the watch and will wake us.
        return Ok(Action::requeue(Duration::from_secs(5)));
    }
    let now = Timestamp::now();
    let observed = observe::observe(ctx, finetune, now).await?; // (client)
    let valid = validate::validate(finetune, &observed.claims, observed.gpu, &ctx.defaults); // (no client)
    let initial = status::initial();
    let input = decide::Input {
        finetune,
        status: finetune.status.as_ref().unwrap_or(&initial),
        valid: valid.as_ref(),
        observed: &observed,
        settings: &ctx.settings,
        now,
    };
    let decision = decide::decide(&input); // (no client)
    let desired = apply::desired(&input, &decision); // (no client)
    let applied = apply::apply(ctx, &input, &decision, desired).await; // (client)
    let (decision, started) = match &applied {
        Ok(applied) => (
            decision,
            applied
                .as_ref()
                .and_then(|a| a.job.metadata.creation_timestamp.clone()),
        ),
        Err(error) => (error.as_decision(&input).unwrap_or(decision), None),
    };
    let next = status::next_status(&input, &decision, started); // (no client)
    let delayed = update_status::update_status(ctx, &input, next).await?; // (client)
    applied?;
    let wake = [decision.wake, observed.next_poll, delayed, Some(RESYNC)];
    Ok(Action::requeue(
        wake.into_iter().flatten().min().unwrap_or(RESYNC),
    ))
}

/// When to try again after an error.
pub fn error_policy(guarded: Arc<Guarded>, error: &Error, ctx: Arc<Context>) -> Action {
    let object = guarded.name_any();
    let namespace = guarded.namespace().unwrap_or_default();
    if error.is_conflict() {
        tracing::debug!(object, namespace, %error, "trying again");
        return Action::requeue(jittered(CONFLICT_RETRY));
    }
    let uid = guarded.meta().uid.clone().unwrap_or_default();
    let mut failures = ctx.lock_failures();
    let count = failures.entry(uid).or_insert(0);
    let pause = FIRST_RETRY
        .saturating_mul(1 << (*count).min(16))
        .min(LONGEST_RETRY);
    *count = count.saturating_add(1);
    tracing::warn!(object, namespace, %error, kind = error.kind(), ?pause, "reconciliation failed");
    Action::requeue(jittered(pause))
}

/// What fixtures are made with.
#[cfg(test)]
pub mod testing {
    pub use super::observe::{AttemptJob, TrainerPod};
    pub use super::validate::{ValidatedFineTune, validate};
}
