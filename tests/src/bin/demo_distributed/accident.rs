//! What befalls a run.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use integration::{
    TestNamespace, cluster_command, digits, operator, runs, wait_for, wait_node_ready, worker_nodes,
};
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use vlft_crds::contract::{env, label};
use vlft_crds::status::FailureClass;

use crate::summary::Run;
use crate::{CHECKPOINT_EVERY, END, STEPS, two_by_two};

/// Accidents after the first checkpoint.
#[derive(Debug, Clone, Copy)]
pub enum Accident {
    KilledRank,
    DeletedPod,
    LostNode,
}

impl Accident {
    pub const ALL: [Self; 3] = [Self::KilledRank, Self::DeletedPod, Self::LostNode];

    /// Name of the run.
    pub fn name(self) -> &'static str {
        match self {
            Self::KilledRank => "killed-rank",
            Self::DeletedPod => "deleted-pod",
            Self::LostNode => "lost-node",
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::KilledRank => "one of four ranks is killed",
            Self::DeletedPod => "one of two pods is deleted without grace",
            Self::LostNode => "one of two nodes loses its network",
        }
    }

    fn expected(self) -> &'static [FailureClass] {
        match self {
            Self::KilledRank => &[FailureClass::Bug, FailureClass::OutOfMemory],
            // The kubelet tells it to stop even so, and a small model is saved by then; else the
            // rank that misses it speaks.
            Self::DeletedPod => &[
                FailureClass::Drained,
                FailureClass::Preempted,
                FailureClass::PeerLost,
            ],
            Self::LostNode => &[FailureClass::NodeLost],
        }
    }

    /// Trains through the accident.
    pub async fn run(self, ns: &TestNamespace) -> Result<Run> {
        let name = self.name();
        digits::start(ns, name, two_by_two).await?;
        let step = runs::first_checkpoint(ns, name, END).await?;
        ensure!(step < STEPS, "{name}: it had ended before its accident");
        let begin = Instant::now();
        let lost_node = self.happen(ns).await?;
        let outage = self.outage(ns, begin).await;
        let ended = match &outage {
            Ok(_) => runs::succeeded(ns, name, END).await,
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        // Whatever came out, the next run needs both nodes.
        if let Some(node) = lost_node {
            cluster_command(&["mend", &node]).await?;
            wait_node_ready(&ns.client, &node).await?;
        }
        let (status, outage) = (ended?, outage?);
        let weights = runs::weights_digest(ns, name, &status).await?;
        let run = Run::disturbed(name, self.words(), &status, outage, weights)?;
        ensure!(
            self.expected().contains(&run.class_of_first()),
            "{name}: the verdict is {:?}",
            run.verdict
        );
        let resumed = run.resumed_from_step.context("it began anew")?;
        ensure!(
            resumed >= step && (resumed % CHECKPOINT_EVERY == 0 || run.was_drained()),
            "{name}: resumed from step {resumed}"
        );
        Ok(run)
    }

    /// Makes it happen; the node that must be mended.
    async fn happen(self, ns: &TestNamespace) -> Result<Option<String>> {
        match self {
            Self::KilledRank => {
                let rank_3 = [(env::NODE_RANK, "1"), (env::LOCAL_RANK, "1")];
                runs::kill(&ns.name, self.name(), &rank_3)?;
                Ok(None)
            }
            Self::DeletedPod => {
                let pod = self.pod(ns, |_| true).await?;
                let now = DeleteParams::default().grace_period(0);
                ns.api::<Pod>().delete(&pod.name_any(), &now).await?;
                Ok(None)
            }
            Self::LostNode => {
                let home = operator::node(&ns.client).await?;
                let nodes = worker_nodes(&ns.client).await?;
                let away = nodes.into_iter().find(|node| *node != home);
                let away = away.context("this takes two nodes")?;
                // The run is on both.
                let node = |pod: &Pod| pod.spec.clone().and_then(|spec| spec.node_name);
                self.pod(ns, |pod| node(pod).as_ref() == Some(&away))
                    .await?;
                cluster_command(&["cut", &away]).await?;
                Ok(Some(away))
            }
        }
    }

    async fn pod(self, ns: &TestNamespace, fits: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let of_run = ListParams::default().labels(&format!("{}={}", label::FINETUNE, self.name()));
        let pods = ns.api::<Pod>().list(&of_run).await?;
        let found = pods.items.into_iter().find(fits);
        found.with_context(|| format!("{}: no such pod", self.name()))
    }

    /// Seconds from the accident until the next attempt has taken a step.
    async fn outage(self, ns: &TestNamespace, begin: Instant) -> Result<f64> {
        wait_for("the next attempt's first step", END, async || {
            let status = runs::status(ns, self.name()).await?;
            let resumed = status.attempts.get(1).and_then(|a| a.resumed_from.clone());
            let step = status.progress.map_or(0, |progress| progress.step);
            let goes_on = resumed.is_some_and(|from| step > from.step);
            Ok((status.attempt == 2 && goes_on).then_some(()))
        })
        .await?;
        Ok(begin.elapsed().as_secs_f64())
    }
}

/// One pod on each node, while there are two.
pub fn spread() -> Vec<TopologySpreadConstraint> {
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {label::ROLE: label::ROLE_TRAINER}},
    });
    serde_json::from_value(constraint).into_iter().collect()
}
