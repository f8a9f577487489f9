//! Labels of nodes with GPUs, asked for at most twice a minute, however many runs begin.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::Mutex;
use tokio::time::Instant;
use vlft_crds::plan::gpu::{MEMORY_LABEL, NodeLabels};

use super::Error;

/// How long an answer is used: nodes come and go with autoscalers.
const FRESH: Duration = Duration::from_secs(30);

/// The last answer.
#[derive(Debug, Default)]
pub struct GpuLabels(Mutex<Option<(Instant, Arc<Vec<NodeLabels>>)>>);

impl GpuLabels {
    /// Labels of all nodes that tell the memory of their GPUs. (client)
    pub async fn of_nodes(&self, client: &Client) -> Result<Arc<Vec<NodeLabels>>, Error> {
        // Held while asking: others wait for the same answer.
        let mut last = self.0.lock().await;
        if let Some((asked, labels)) = last.as_ref()
            && asked.elapsed() < FRESH
        {
            return Ok(Arc::clone(labels));
        }
        let nodes: Api<Node> = Api::all(client.clone());
        let labelled = ListParams::default().labels(MEMORY_LABEL);
        let found = match nodes.list_metadata(&labelled).await {
            Ok(found) => found.items,
            // Installed without this right: then nothing is known of the GPUs.
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::warn!("nodes may not be listed: the memory of GPUs stays unknown");
                Vec::new()
            }
            Err(error) => return Err(Error::read(error)),
        };
        let labels = found.iter().map(|node| node.labels().clone());
        let labels = Arc::new(labels.collect());
        *last = Some((Instant::now(), Arc::clone(&labels)));
        Ok(labels)
    }
}
