use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, LogParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};
use std::fs;
use std::path::{Path, PathBuf};

/// Written as they are named; secrets never leave the cluster.
const NEVER: [&str; 1] = ["Secret"];
/// Objects without a namespace that explain what happened in one.
const CLUSTER_WIDE: [&str; 2] = ["Node", "PersistentVolume"];

/// Writes every object of a namespace (one YAML file per kind, events among them), the nodes,
/// the volumes and all pod logs below `out/<name>/`; returns that folder.
pub async fn dump_namespace(client: &Client, namespace: &str, name: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let folder = root.join("out").join(name);
    fs::create_dir_all(folder.join("logs"))
        .with_context(|| format!("cannot create {}", folder.display()))?;
    dump_logs(client, namespace, &folder.join("logs")).await?;
    dump_objects(client, namespace, &folder).await?;
    Ok(folder)
}

async fn dump_objects(client: &Client, namespace: &str, folder: &Path) -> Result<()> {
    let discovery = Discovery::new(client.clone())
        .run()
        .await
        .context("cannot list kinds")?;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let kind = resource.kind.as_str();
            let namespaced = capabilities.scope == Scope::Namespaced;
            let wanted = namespaced || CLUSTER_WIDE.contains(&kind);
            if NEVER.contains(&kind) || !wanted || !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let api: Api<DynamicObject> = match namespaced {
                true => Api::namespaced_with(client.clone(), namespace, &resource),
                false => Api::all_with(client.clone(), &resource),
            };
            let Ok(list) = api.list(&ListParams::default()).await else {
                continue;
            };
            if !list.items.is_empty() {
                let path = folder.join(format!("{}.yaml", resource.plural));
                fs::write(path, serde_yaml::to_string(&list.items)?)?;
            }
        }
    }
    Ok(())
}

/// The log of every container, and of its run before the last restart where there was one.
async fn dump_logs(client: &Client, namespace: &str, folder: &Path) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods
        .list(&ListParams::default())
        .await
        .context("cannot list pods")?
        .items
    {
        let spec = pod.spec.clone().unwrap_or_default();
        let containers = spec
            .init_containers
            .unwrap_or_default()
            .into_iter()
            .chain(spec.containers);
        for container in containers {
            for previous in [false, true] {
                let wanted = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    ..LogParams::default()
                };
                // There may be none yet, or no earlier run.
                let Ok(text) = pods.logs(&pod.name_any(), &wanted).await else {
                    continue;
                };
                let suffix = if previous { ".previous" } else { "" };
                let file = format!("{}_{}{suffix}.log", pod.name_any(), container.name);
                fs::write(folder.join(file), text)?;
            }
        }
    }
    Ok(())
}
