//! What the cluster shows of one VLFineTune. Almost all of it comes from the watches; the
//! API server is asked only where a cache may not be trusted.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use vlft_crds::VLFineTune;
use vlft_crds::contract::{Progress, TerminationReport};
use vlft_crds::plan::gpu::{self, GpuMemory};
use vlft_crds::plan::preflight::base_model;
use vlft_crds::workers::Device;

use super::decide::after;
use super::policy::node_lost;
use super::validate::{ClaimModes, claims_to_look_up};
use super::{Context, Error};

pub mod children;
pub mod progress;
pub mod reduced;

pub use children::{Child, Key};
pub use reduced::{AttemptJob, TrainerPod};

/// What the cluster shows of one VLFineTune.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Job of the current attempt.
    pub job: Option<Arc<AttemptJob>>,
    /// The Job of the current attempt was there and is gone: the API server itself says so.
    pub job_vanished: bool,
    /// Pods of the current attempt, deleted ones included: they are evidence.
    pub pods: Vec<Child<TrainerPod>>,
    /// Numbers of lower attempts that still have a Job.
    pub stale_attempts: Vec<i64>,
    /// What rank 0 told last, of this attempt.
    pub progress: Option<Progress>,
    /// Time until rank 0 is asked again.
    pub next_poll: Option<Duration>,
    /// Access modes of existing claims, where several pods must share them.
    pub claims: ClaimModes,
    /// Memory of the GPUs that the run may land on; looked up only before an attempt has its Job.
    pub gpu: Option<GpuMemory>,
    /// Nodes that have been NotReady for longer than the run waits for them.
    pub lost_nodes: BTreeSet<String>,
}

impl Observed {
    /// Pods whose processes may still run.
    pub fn pods_alive(&self) -> impl Iterator<Item = &TrainerPod> {
        let alive = self
            .pods
            .iter()
            .filter(|child| !child.gone && !child.object.is_over());
        alive.map(|child| child.object.as_ref())
    }

    /// Last words of rank 0, once its newest pod has ended.
    pub fn rank_zero_report(&self) -> Option<TerminationReport> {
        let pods = self.pods.iter().map(|child| &child.object);
        let first = pods.filter(|pod| pod.index() == 0);
        let newest = first.max_by_key(|pod| pod.created())?;
        newest.report().filter(|report| report.rank == 0)
    }

    /// Where the run stands: what rank 0 reported at its end, or told last before.
    pub fn latest_progress(&self) -> Option<Progress> {
        let reported = self
            .rank_zero_report()
            .map(|report| progress::sane(report.progress));
        reported.or_else(|| self.progress.clone())
    }

    pub fn is_on_lost_node(&self, pod: &TrainerPod) -> bool {
        pod.spec
            .node_name
            .as_ref()
            .is_some_and(|node| self.lost_nodes.contains(node))
    }
}

/// Gathers what the rules look at. (client)
pub async fn observe(
    ctx: &Context,
    finetune: &VLFineTune,
    now: Timestamp,
) -> Result<Observed, Error> {
    let mut observed = from_watches(ctx, finetune);
    confirm_vanished_job(ctx, finetune, &mut observed).await?;
    look_up_claims(ctx, finetune, &mut observed).await?;
    look_up_gpus(ctx, finetune, &mut observed).await?;
    look_up_silent_nodes(ctx, finetune, now, &mut observed).await?;
    ask_rank_zero(ctx, finetune, &mut observed).await;
    Ok(observed)
}

fn from_watches(ctx: &Context, finetune: &VLFineTune) -> Observed {
    let key = key_of(finetune);
    let uid = finetune.metadata.uid.as_deref().unwrap_or_default();
    let current = attempt_of(finetune);
    ctx.children.forget_before(&key, uid, current);
    let jobs = ctx.children.jobs.of(&key).into_iter();
    let jobs: Vec<_> = jobs
        .filter(|job| !job.gone && job.object.is_owned_by(uid))
        .collect();
    let number = |child: &Child<AttemptJob>| child.object.attempt();
    let job = jobs.iter().find(|job| number(job) == Some(current));
    let pods = ctx.children.pods.of(&key).into_iter();
    let is_ours = |pod: &TrainerPod| pod.belongs_to(uid) && pod.attempt() == Some(current);
    Observed {
        job: job.map(|job| Arc::clone(&job.object)),
        stale_attempts: jobs
            .iter()
            .filter_map(number)
            .filter(|n| *n < current)
            .collect(),
        pods: newest_evidence(pods.filter(|pod| is_ours(&pod.object)).collect()),
        ..Observed::default()
    }
}

/// Without deleted pods that a newer one of the same index has followed: a queue may stop a
/// Job and let it go on, and only its last execution tells how it ended.
fn newest_evidence(pods: Vec<Child<TrainerPod>>) -> Vec<Child<TrainerPod>> {
    let newest = |index: i64| {
        let same = pods.iter().filter(|child| child.object.index() == index);
        same.filter_map(|child| child.object.created()).max()
    };
    let stays = |child: &&Child<TrainerPod>| {
        !child.gone || child.object.created() >= newest(child.object.index())
    };
    pods.iter().filter(stays).cloned().collect()
}

/// A cache may lag behind status; only the API server can say that a Job is gone.
async fn confirm_vanished_job(
    ctx: &Context,
    finetune: &VLFineTune,
    observed: &mut Observed,
) -> Result<(), Error> {
    let status = finetune.status.as_ref();
    let attempt = status.and_then(|status| status.attempts.last());
    let Some(attempt) = attempt.filter(|a| a.start_time.is_some() && a.verdict.is_none()) else {
        return Ok(());
    };
    if observed.job.is_some() {
        return Ok(());
    }
    let jobs: Api<AttemptJob> = ctx.api(finetune);
    let uid = finetune.metadata.uid.as_deref().unwrap_or_default();
    let job = jobs.get_opt(&attempt.job_name).await.map_err(Error::read)?;
    observed.job = job.filter(|job| job.is_owned_by(uid)).map(Arc::new);
    observed.job_vanished = observed.job.is_none();
    Ok(())
}

async fn look_up_claims(
    ctx: &Context,
    finetune: &VLFineTune,
    observed: &mut Observed,
) -> Result<(), Error> {
    if observed.job.is_some() {
        return Ok(());
    }
    let claims: Api<PersistentVolumeClaim> = ctx.api(finetune);
    for name in claims_to_look_up(finetune) {
        if let Some(claim) = claims.get_opt(&name).await.map_err(Error::read)? {
            let modes = claim.spec.and_then(|spec| spec.access_modes);
            observed.claims.insert(name, modes.unwrap_or_default());
        }
    }
    Ok(())
}

/// What the spec says, or the labels of nodes; asked only where the model is known.
async fn look_up_gpus(
    ctx: &Context,
    finetune: &VLFineTune,
    observed: &mut Observed,
) -> Result<(), Error> {
    let spec = &finetune.spec;
    if observed.job.is_some() || spec.workers.device != Device::Gpu {
        return Ok(());
    }
    observed.gpu = gpu::given(spec);
    if observed.gpu.is_none() && base_model(spec).is_some() {
        let nodes = ctx.gpus.of_nodes(&ctx.client).await?;
        observed.gpu = gpu::on_nodes(spec, &nodes);
    }
    Ok(())
}

/// A pod can only hint at its node's silence; the node's own condition decides.
async fn look_up_silent_nodes(
    ctx: &Context,
    finetune: &VLFineTune,
    now: Timestamp,
    observed: &mut Observed,
) -> Result<(), Error> {
    let timeout = node_lost::timeout(finetune.spec.run_policy.node_lost_timeout_seconds);
    let silent = observed.pods_alive().filter(|pod| {
        pod.node_silent_since()
            .is_some_and(|since| after(since.0, timeout) <= now)
    });
    let names: BTreeSet<String> = silent
        .filter_map(|pod| pod.spec.node_name.clone())
        .collect();
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    for name in names {
        let node = nodes.get_opt(&name).await.map_err(Error::read)?;
        if node.is_none_or(|node| !is_ready(&node)) {
            observed.lost_nodes.insert(name);
        }
    }
    Ok(())
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn ask_rank_zero(ctx: &Context, finetune: &VLFineTune, observed: &mut Observed) {
    let uid = finetune.metadata.uid.as_deref().unwrap_or_default();
    let attempt = attempt_of(finetune);
    let rank_zero = observed
        .pods_alive()
        .find(|pod| pod.index() == 0 && pod.is_running());
    let ip = rank_zero.and_then(|pod| pod.status.pod_ip.as_deref());
    match ip.and_then(|ip| ip.parse::<IpAddr>().ok()) {
        Some(ip) => {
            let (progress, next) = ctx.polls.refresh(uid, attempt, ip).await;
            observed.progress = progress;
            observed.next_poll = Some(next);
        }
        None => observed.progress = ctx.polls.latest(uid, attempt),
    }
}

/// Namespace and name.
pub fn key_of(finetune: &VLFineTune) -> Key {
    (
        finetune.namespace().unwrap_or_default(),
        finetune.name_any(),
    )
}

fn attempt_of(finetune: &VLFineTune) -> i64 {
    finetune.status.as_ref().map_or(0, |status| status.attempt)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{exited, pod, report, running, time};

    fn child(
        name: &str,
        created: &str,
        gone: bool,
        status: serde_json::Value,
    ) -> Child<TrainerPod> {
        let mut pod = pod(1, 0, status);
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.creation_timestamp = Some(time(created));
        Child {
            object: Arc::new(pod),
            gone,
        }
    }

    #[test]
    fn only_the_last_execution_of_a_job_is_evidence() {
        let drained = report(json!({ "class": "Drained", "progress": { "step": 3 } }));
        let old = child("b", "2026-01-01T00:00:01Z", true, exited(14, &drained));
        let new = child("a", "2026-01-01T00:05:00Z", false, running());
        assert_eq!(newest_evidence(vec![old.clone()]).len(), 1);
        let observed = Observed {
            pods: newest_evidence(vec![old.clone(), new]),
            ..Observed::default()
        };
        let names: Vec<&str> = observed
            .pods
            .iter()
            .map(|child| child.object.name())
            .collect();
        assert_eq!(names, ["a"]);
        assert_eq!(observed.rank_zero_report(), None);
        // One that still ends may still write: it is not forgotten.
        let ending = Child { gone: false, ..old };
        let new = child("a", "2026-01-01T00:05:00Z", false, running());
        let observed = Observed {
            pods: newest_evidence(vec![ending, new]),
            ..Observed::default()
        };
        assert_eq!(observed.pods.len(), 2);
        assert_eq!(observed.rank_zero_report(), None);
    }
}
