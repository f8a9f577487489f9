//! The digits example on the cluster, as small as a test needs it.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::PostParams;
use serde_json::{Value, json};
use vlft_crds::{VLFineTune, load};

use crate::operator::trainer_image;
use crate::{TestNamespace, chart, wait_for};

/// Claim that examples/digits.yaml names.
const CLAIM: &str = "vlft-examples";

/// Made in the pod: the image carries the digits, the model comes from their text.
const SCRIPT: &str = "set -e; cp -r /opt/vlft/examples/digits /volume/digits; \
    trainer init --data /volume/digits/train --out /volume/digits-model \
    --prompt 'What is in this picture?'";

/// Makes the claim that the example names, and fills it by a Job that runs the trainer image.
pub async fn fill_volume(ns: &TestNamespace) -> Result<()> {
    make_claim(ns).await?;
    ns.create::<Job>(fill_job(CLAIM)).await?;
    let succeeded = wait_for(
        "the Job that fills the volume",
        Duration::from_secs(120),
        async || {
            let job = ns.api::<Job>().get("fill-examples").await?;
            let status = job.status.unwrap_or_default();
            let (failed, succeeded) = (status.failed, status.succeeded);
            let ended = [failed, succeeded].map(|pods| pods.unwrap_or_default() > 0);
            Ok(ended.contains(&true).then_some(ended[1]))
        },
    )
    .await?;
    ensure!(
        succeeded,
        "the Job fill-examples failed; its log is in the dump"
    );
    Ok(())
}

/// The claim that the example names, with nothing in it.
pub async fn make_claim(ns: &TestNamespace) -> Result<PersistentVolumeClaim> {
    ns.create(json!({
        "metadata": {"name": CLAIM},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }))
    .await
}

fn fill_job(claim: &str) -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    json!({
        "metadata": {"name": "fill-examples"},
        "spec": {"backoffLimit": 0, "activeDeadlineSeconds": 120, "template": {"spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "trainer", "image": trainer_image(), "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", SCRIPT], "securityContext": security,
                "volumeMounts": [
                    {"name": "volume", "mountPath": "/volume"}, {"name": "tmp", "mountPath": "/tmp"},
                ],
            }],
            "volumes": [
                {"name": "volume", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }}},
    })
}

/// examples/digits.yaml under another name and with changes to its spec.
///
/// # Errors
/// When the API server refuses it.
pub async fn start(
    ns: &TestNamespace,
    name: &str,
    change: impl FnOnce(&mut VLFineTune),
) -> Result<VLFineTune> {
    let mut finetune = load::load_file(&chart::root().join("examples/digits.yaml"))?;
    finetune.metadata.name = Some(name.to_owned());
    finetune.metadata.namespace = None;
    change(&mut finetune);
    Ok(ns
        .api::<VLFineTune>()
        .create(&PostParams::default(), &finetune)
        .await?)
}
