//! The operator as people get it: installed from its chart.

use std::process::Command;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::chart;

/// Name of the Helm release.
pub const RELEASE: &str = "vlfinetune-operator";
/// Namespace of the Helm release.
pub const NAMESPACE: &str = "vlfinetune-system";

/// Image of the operator: `VLFT_OPERATOR_IMAGE`, else what scripts/images.sh builds.
pub fn operator_image() -> String {
    image("VLFT_OPERATOR_IMAGE", "operator")
}

/// Image of the trainer: `VLFT_TRAINER_IMAGE`, else what scripts/images.sh builds.
pub fn trainer_image() -> String {
    image("VLFT_TRAINER_IMAGE", "trainer")
}

fn image(variable: &str, name: &str) -> String {
    let built = || format!("vlfinetune/{name}:{}", env!("CARGO_PKG_VERSION"));
    std::env::var(variable).unwrap_or_else(|_| built())
}

/// The operator runs and is ready; it is installed if it was not. Every test that creates a
/// VLFineTune begins with this; they share the one operator.
///
/// # Errors
/// When helm cannot install it within two minutes, with what helm and the pods say.
pub async fn ensure_operator(client: &Client) -> Result<()> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED
        .get_or_try_init(|| install(client, &[]))
        .await
        .copied()
}

/// `helm upgrade --install` of the chart with the images of this build; `arguments` come last.
pub async fn install(client: &Client, arguments: &[&str]) -> Result<()> {
    create_namespace(client).await?;
    let mut helm = helm(&["upgrade", "--install", RELEASE]);
    helm.arg(chart::folder()).args(settings()).args(arguments);
    chart::run(&mut helm).map(drop).with_context(describe_pods)
}

/// helm with these words, in the release's namespace, waiting at most two minutes.
pub fn helm(words: &[&str]) -> Command {
    let mut helm = chart::helm();
    helm.args(words)
        .args(["--namespace", NAMESPACE, "--wait", "--timeout", "120s"]);
    helm
}

/// Values of a test's installation.
pub fn settings() -> Vec<String> {
    let values = [
        ("image.reference", operator_image()),
        ("trainer.image", trainer_image()),
        ("progressInterval", "1s".to_owned()),
    ];
    values
        .into_iter()
        .flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")])
        .collect()
}

/// The release's namespace, under the restricted pod security standard.
async fn create_namespace(client: &Client) -> Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    });
    let params = PatchParams::apply("vlft-tests");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .patch(NAMESPACE, &params, &Patch::Apply(&namespace))
        .await
        .with_context(|| format!("cannot make namespace {NAMESPACE}; is the cluster up?"))?;
    Ok(())
}

/// The node that the operator is on.
pub async fn node(client: &Client) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pods = pods.list(&ListParams::default()).await?;
    let mut nodes = pods.items.iter();
    let node = nodes.find_map(|pod| pod.spec.as_ref()?.node_name.clone());
    node.context("the operator is on no node")
}

/// What the operator's pods say of themselves, for messages.
pub fn describe_pods() -> String {
    let shown = [
        vec!["get", "pods,deployments", "-o", "wide"],
        vec!["describe", "pods"],
        vec![
            "logs",
            "--tail=40",
            "--all-pods=true",
            "deployment/vlfinetune-operator",
        ],
    ];
    let show = |words: &Vec<&str>| {
        let mut command = chart::kubectl();
        chart::run(command.args(["--namespace", NAMESPACE]).args(words))
            .unwrap_or_else(|error| error.to_string())
    };
    shown.iter().map(show).collect::<Vec<_>>().join("\n")
}
