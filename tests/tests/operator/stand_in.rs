//! VLFineTunes whose trainer is the stand-in, and what tests ask about them.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::operator::ensure_operator;
use integration::{TestNamespace, wait_for};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use vlft_crds::status::{Attempt, Phase, VLFineTuneStatus};
use vlft_crds::{VLFineTune, contract::label};

/// scripts/cluster-images.sh makes it.
const IMAGE: &str = "localhost/vlft/stand-in:1";
/// Longest wait for anything a test waits for; the machine may be busy.
pub const LONG: Duration = Duration::from_secs(180);

/// One VLFineTune of a test.
pub struct Run<'a> {
    pub ns: &'a TestNamespace,
    pub name: &'static str,
}

/// A spec for the stand-in; `env` are its settings, `extra` is merged over the spec.
pub fn spec(env: &[(&str, &str)], extra: Value) -> Value {
    let env: Vec<Value> = env
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let mut spec = json!({
        "model": { "uri": "file:///models/none" },
        "dataset": { "train": [{ "uri": "file:///data/none" }] },
        "workers": {
            "device": "CPU",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "resources": { "requests": { "cpu": "20m", "memory": "16Mi" } },
            "podOverrides": { "env": env, "terminationGracePeriodSeconds": 20 },
        },
        "checkpoint": { "volume": { "size": "10Mi" } },
    });
    merge(&mut spec, extra);
    spec
}

/// JSON merge patch.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

impl<'a> Run<'a> {
    /// Creates it, with the operator there.
    pub async fn create(ns: &'a TestNamespace, name: &'static str, spec: Value) -> Result<Self> {
        ensure_operator(&ns.client).await?;
        ns.create::<VLFineTune>(json!({ "metadata": { "name": name }, "spec": spec }))
            .await?;
        Ok(Self { ns, name })
    }

    pub async fn get(&self) -> Result<VLFineTune> {
        Ok(self.ns.api::<VLFineTune>().get(self.name).await?)
    }

    pub async fn status(&self) -> Result<VLFineTuneStatus> {
        Ok(self.get().await?.status.unwrap_or_default())
    }

    /// Changes the spec.
    pub async fn patch(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.ns
            .api::<VLFineTune>()
            .patch(self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    /// Waits for a status; what it is instead becomes the error.
    pub async fn wait(
        &self,
        what: &str,
        wanted: impl Fn(&VLFineTuneStatus) -> bool,
    ) -> Result<VLFineTuneStatus> {
        wait_for(what, LONG, async || {
            let status = self.status().await?;
            if wanted(&status) {
                return Ok(Some(status));
            }
            bail!("{}", serde_json::to_string(&status)?)
        })
        .await
    }

    pub async fn wait_phase(&self, phase: Phase) -> Result<VLFineTuneStatus> {
        self.wait(&format!("phase {phase:?}"), |status| status.phase == phase)
            .await
    }

    pub async fn wait_step(&self, step: i64) -> Result<VLFineTuneStatus> {
        let reached = |status: &VLFineTuneStatus| {
            status
                .progress
                .as_ref()
                .is_some_and(|progress| progress.step >= step)
        };
        self.wait(&format!("step {step}"), reached).await
    }

    /// The Jobs of this run that exist: name and UID.
    pub async fn jobs(&self) -> Result<Vec<(String, String)>> {
        use k8s_openapi::api::batch::v1::Job;
        let jobs = self.ns.api::<Job>().list(&self.children()).await?;
        let names = jobs
            .items
            .iter()
            .map(|job| (job.name_any(), job.uid().unwrap_or_default()));
        Ok(names.collect())
    }

    /// Selects this run's children.
    pub fn children(&self) -> ListParams {
        ListParams::default().labels(&format!("{}={}", label::FINETUNE, self.name))
    }

    /// Waits for an event of a reason; returns its note.
    pub async fn wait_event(&self, reason: &str) -> Result<String> {
        let events = self.ns.api::<Event>();
        wait_for(&format!("event {reason}"), LONG, async || {
            let list = events.list(&ListParams::default()).await?;
            let about = |event: &&Event| {
                let regarding = event.regarding.as_ref();
                regarding.is_some_and(|r| r.name.as_deref() == Some(self.name))
                    && event.reason.as_deref() == Some(reason)
            };
            let event = list.items.iter().find(about);
            Ok(event.map(|event| event.note.clone().unwrap_or_default()))
        })
        .await
    }
}

/// Status and reason of a condition, which must speak of the current generation.
pub fn condition(finetune: &VLFineTune, kind: &str) -> Result<(String, String)> {
    let status = finetune.status.as_ref().context("no status")?;
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind);
    let condition = condition.with_context(|| format!("no condition {kind}"))?;
    ensure!(
        condition.observed_generation == finetune.metadata.generation,
        "{kind} speaks of generation {:?}",
        condition.observed_generation
    );
    Ok((condition.status.clone(), condition.reason.clone()))
}

/// The attempt of a number, which must be there.
pub fn attempt(status: &VLFineTuneStatus, number: i64) -> Result<&Attempt> {
    let attempt = status
        .attempts
        .iter()
        .find(|attempt| attempt.number == number);
    attempt.with_context(|| format!("no attempt {number}"))
}
