//! The namespace and the operator.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::process::Command;

use crate::{NAMESPACE, Settings};

/// Makes the namespace and installs the chart, waiting until the operator is ready.
pub async fn install(settings: &Settings, client: &Client) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    });
    Api::<Namespace>::all(client.clone())
        .patch(
            NAMESPACE,
            &PatchParams::apply("vlft-demo"),
            &Patch::Apply(&namespace),
        )
        .await
        .context("cannot make the demo's namespace")?;
    helm_install(settings).await
}

async fn helm_install(settings: &Settings) -> Result<()> {
    let chart = settings.root.join("charts/vlfinetune-operator");
    let output = Command::new(&settings.helm)
        .args(["upgrade", "--install", "vlfinetune-operator"])
        .arg(chart)
        .args(["--namespace", "vlfinetune-system", "--create-namespace"])
        .args([
            "--set",
            &format!("image.reference={}", settings.operator_image),
        ])
        .args([
            "--set",
            &format!("trainer.image={}", settings.trainer_image),
        ])
        .args(["--set", "progressInterval=2s"])
        .args(["--wait", "--timeout", "120s"])
        .output()
        .await
        .with_context(|| format!("cannot run {}", settings.helm))?;
    ensure!(
        output.status.success(),
        "helm could not install the operator: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
