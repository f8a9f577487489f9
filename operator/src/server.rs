//! `/metrics`, `/healthz` and `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio::net::TcpListener;
use vlft_crds::status::Phase;

use crate::controller::{ChildCaches, Guarded};
use crate::leader::Leadership;
use crate::metrics::Metrics;

/// What the endpoints tell about.
#[derive(Clone)]
pub struct Served {
    pub metrics: Arc<Metrics>,
    pub leadership: Arc<Leadership>,
    pub children: Arc<ChildCaches>,
    pub store: Store<Guarded>,
}

/// Serves until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(served))
        .with_graceful_shutdown(shutdown)
        .await
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(served)
}

async fn metrics(State(served): State<Served>) -> Response {
    served.metrics.set_leader(served.leadership.is_held());
    served.metrics.set_finetunes(&by_phase(&served.store));
    match served.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A replica that stands by is ready; one that leads is once its watches have listed all.
async fn readyz(State(served): State<Served>) -> (StatusCode, &'static str) {
    if served.leadership.is_held() && !served.children.are_synced() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the watches have not listed everything yet\n",
        );
    }
    (StatusCode::OK, "ok\n")
}

fn by_phase(store: &Store<Guarded>) -> BTreeMap<(String, String), i64> {
    let mut counts = BTreeMap::new();
    for guarded in store.state() {
        let status = guarded
            .0
            .as_ref()
            .ok()
            .and_then(|finetune| finetune.status.as_ref());
        let phase = status.map_or(Phase::Pending, |status| status.phase);
        let namespace = guarded.namespace().unwrap_or_default();
        *counts.entry((namespace, format!("{phase:?}"))).or_insert(0) += 1;
    }
    counts
}
