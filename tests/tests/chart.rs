//! The chart's whole life on a real cluster, with a real change of the resource definition in
//! the middle: install, upgrade, rollback, uninstall, install again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::operator::{self, RELEASE, helm, install, settings};
use integration::{TestNamespace, chart, wait_for, with_temp_ns};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, CustomResourceExt};
use serde_json::{Value, json};
use vlft_crds::VLFineTune;

#[tokio::test]
async fn install_upgrade_rollback_uninstall() -> Result<()> {
    with_temp_ns("chart", async |ns| {
        install(&ns.client, &[]).await?;
        let created = create_suspended(ns).await?;
        is_reconciled(ns).await.context("after the installation")?;
        ensure!(
            !keeps_a_note(ns).await?,
            "the definition has a field `note` before the upgrade"
        );

        let newer = tempfile::tempdir()?;
        write_newer_chart(newer.path())?;
        chart::run(
            helm(&["upgrade", RELEASE])
                .arg(newer.path())
                .args(settings()),
        )?;
        ensure!(
            keeps_a_note(ns).await?,
            "the upgrade did not change the definition"
        );
        is_reconciled(ns).await.context("after the upgrade")?;

        chart::run(&mut helm(&["rollback", RELEASE]))?;
        ensure!(
            !keeps_a_note(ns).await?,
            "the rollback did not change the definition back"
        );
        is_reconciled(ns).await.context("after the rollback")?;

        chart::run(&mut helm(&["uninstall", RELEASE]))?;
        only_the_definition_is_left(ns).await?;
        let kept = api(ns)
            .get("kept")
            .await
            .context("the uninstall deleted a VLFineTune")?;
        ensure!(
            kept.metadata.uid == created.metadata.uid,
            "the VLFineTune is another one"
        );

        install(&ns.client, &[])
            .await
            .context("installing again over the kept definition")?;
        touch(ns).await?;
        is_reconciled(ns)
            .await
            .context("after the second installation")
    })
    .await
}

fn api(ns: &TestNamespace) -> Api<DynamicObject> {
    let resource = VLFineTune::api_resource();
    Api::namespaced_with(ns.client.clone(), &ns.name, &resource)
}

/// A VLFineTune that starts nothing.
async fn create_suspended(ns: &TestNamespace) -> Result<DynamicObject> {
    let resource: ApiResource = VLFineTune::api_resource();
    let object = DynamicObject::new("kept", &resource).data(json!({"spec": {
        "model": {"uri": "pvc://models/some"},
        "dataset": {"train": [{"uri": "pvc://data/train"}]},
        "runPolicy": {"suspend": true},
    }}));
    Ok(api(ns).create(&PostParams::default(), &object).await?)
}

/// Changes the spec in a way that means nothing.
async fn touch(ns: &TestNamespace) -> Result<DynamicObject> {
    let current = api(ns).get("kept").await?;
    let seed = current.data["spec"]["training"]["seed"]
        .as_i64()
        .unwrap_or_default();
    let change = json!({"spec": {"training": {"seed": seed + 1}}});
    Ok(api(ns)
        .patch("kept", &PatchParams::default(), &Patch::Merge(change))
        .await?)
}

/// Whether the API server stores a field that only the newer definition has.
async fn keeps_a_note(ns: &TestNamespace) -> Result<bool> {
    let change = json!({"spec": {"note": "kept by the newer definition"}});
    // The API server takes a moment to follow a changed definition: ask until it is settled.
    let mut answers = Vec::new();
    while answers.len() < 8 {
        let patched = api(ns)
            .patch("kept", &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        answers.push(patched.data["spec"]["note"].is_string());
        if answers.len() >= 3 && answers.ends_with(&[true; 3]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(answers.last() == Some(&true))
}

/// The operator has seen the newest spec: it works with the roles the chart gives it.
async fn is_reconciled(ns: &TestNamespace) -> Result<()> {
    wait_for(
        "the operator to see the newest spec",
        Duration::from_secs(60),
        async || {
            let current = api(ns).get("kept").await?;
            let seen = &current.data["status"]["observedGeneration"];
            Ok((seen.as_i64() == current.metadata.generation).then_some(()))
        },
    )
    .await
    .with_context(operator::describe_pods)
}

async fn only_the_definition_is_left(ns: &TestNamespace) -> Result<()> {
    let client = &ns.client;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .get("vlfinetunes.vlft.dev")
        .await
        .context("the uninstall deleted the definition")?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), operator::NAMESPACE);
    let roles: Api<ClusterRole> = Api::all(client.clone());
    wait_for(
        "the operator to be gone",
        Duration::from_secs(60),
        async || {
            let gone = deployments.get_opt(RELEASE).await?.is_none()
                && roles.get_opt(RELEASE).await?.is_none();
            Ok(gone.then_some(()))
        },
    )
    .await
}

/// The chart as a later release might be: one more optional field, one more version.
fn write_newer_chart(target: &Path) -> Result<()> {
    copy(&chart::folder(), target)?;
    let path = target.join("files/vlfinetunes.yaml");
    let mut definition: Value = serde_yaml::from_str(&fs::read_to_string(&path)?)?;
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["note"] = json!({"type": "string", "maxLength": 64});
    fs::write(&path, serde_yaml::to_string(&definition)?)?;
    let path = target.join("Chart.yaml");
    let version = fs::read_to_string(&path)?.replace("\nversion: 0.1.0", "\nversion: 0.2.0");
    Ok(fs::write(&path, version)?)
}

fn copy(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let to = target.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
