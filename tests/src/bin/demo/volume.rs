//! The volume that the example names: a model and the digits.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use integration::jobs::{self, Mount};

use crate::{CLAIM, NAMESPACE, Settings};

/// What runs in the pod: the image carries the digits, the model is made from their text.
const SCRIPT: &str = "set -e; rm -rf /volume/digits /volume/digits-model; \
    cp -r /opt/vlft/examples/digits /volume/digits; \
    trainer init --data /volume/digits/train --out /volume/digits-model \
    --prompt 'What is in this picture?'";

/// Makes the claim and fills it with a Job that runs the trainer image.
pub async fn fill(settings: &Settings, client: &Client) -> Result<()> {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    Api::<PersistentVolumeClaim>::namespaced(client.clone(), NAMESPACE)
        .patch(
            CLAIM,
            &PatchParams::apply("vlft-demo"),
            &Patch::Apply(&claim),
        )
        .await
        .context("cannot make the volume claim")?;
    let command = ["/bin/sh", "-c", SCRIPT].map(str::to_owned);
    let mount = Mount {
        claim: CLAIM.to_owned(),
        path: "/volume",
    };
    jobs::run(
        client,
        NAMESPACE,
        "fill-examples",
        &settings.trainer_image,
        &command,
        &[mount],
    )
    .await?;
    Ok(())
}
