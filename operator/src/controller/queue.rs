//! The work queue: three watches that say which VLFineTune to look at. Jobs and pods are
//! found by label, so that one watch of each kind serves all resources.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use kube::runtime::controller::{Config, ReconcileRequest};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, applier, watcher as watch};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use vlft_crds::contract::label;

use super::observe::children::{Children, Key};
use super::observe::reduced::slim;
use super::{Context, Guarded, error_policy, reconcile};

type Requests = BoxStream<'static, Result<ReconcileRequest<Guarded>, watcher::Error>>;

/// Reconciles until `shutdown` resolves, then lets what has begun come to its end.
pub async fn run(
    ctx: Arc<Context>,
    store: Store<Guarded>,
    writer: Writer<Guarded>,
    concurrency: u16,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let requests = requests(&ctx, &store, writer).take_until(Box::pin(shutdown));
    let config = Config::default().concurrency(concurrency);
    let reconcile = |guarded, ctx| Box::pin(reconcile(guarded, ctx));
    let results = applier(reconcile, error_policy, ctx, store, requests, config);
    // Errors have gone through the error policy; what else comes is about deleted objects.
    results.for_each(|_| std::future::ready(())).await;
}

fn requests(ctx: &Arc<Context>, store: &Store<Guarded>, writer: Writer<Guarded>) -> Requests {
    let jobs = format!("{}={}", label::MANAGED_BY, label::MANAGED_BY_VALUE);
    let pods = format!("{}={}", label::ROLE, label::ROLE_TRAINER);
    let children = [
        child_requests(ctx, store, jobs, |ctx| &ctx.children.jobs),
        child_requests(ctx, store, pods, |ctx| &ctx.children.pods),
    ];
    let mut all: Vec<Requests> = children.into();
    all.push(own_requests(ctx, writer));
    stream::select_all(all).boxed()
}

fn api<K>(ctx: &Context) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match &ctx.namespace {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    }
}

/// The watch on VLFineTunes: fills the store, and asks for a look at each that changes.
fn own_requests(ctx: &Arc<Context>, writer: Writer<Guarded>) -> Requests {
    let ctx = Arc::clone(ctx);
    watch(api::<Guarded>(&ctx), watcher::Config::default())
        .default_backoff()
        .modify(|guarded| slim(guarded.meta_mut()))
        .reflect(writer)
        .filter_map(move |event| std::future::ready(own_request(&ctx, event)))
        .boxed()
}

fn own_request(
    ctx: &Context,
    event: Result<Event<Guarded>, watcher::Error>,
) -> Option<Result<ReconcileRequest<Guarded>, watcher::Error>> {
    match logged(event, "VLFineTune")? {
        Event::Apply(guarded) | Event::InitApply(guarded) => {
            Some(Ok(ReconcileRequest::from(ObjectRef::from_obj(&guarded))))
        }
        Event::Delete(guarded) => {
            let meta = guarded.meta();
            let name = meta.name.clone().unwrap_or_default();
            let key = (meta.namespace.clone().unwrap_or_default(), name);
            ctx.forget(&key, meta.uid.as_deref().unwrap_or_default());
            None
        }
        Event::Init | Event::InitDone => None,
    }
}

/// A watch on one kind of children: fills the cache, and asks for a look at their owners.
fn child_requests<K>(
    ctx: &Arc<Context>,
    store: &Store<Guarded>,
    labels: String,
    cache: fn(&Context) -> &Children<K>,
) -> Requests
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let (ctx, store) = (Arc::clone(ctx), store.clone());
    watch(api::<K>(&ctx), watcher::Config::default().labels(&labels))
        .default_backoff()
        .modify(|child| slim(child.meta_mut()))
        .flat_map(move |event| {
            let event = logged(event, K::kind(&()).as_ref());
            let keys = event
                .map(|event| cache(&ctx).record(event))
                .unwrap_or_default();
            let requests: Vec<_> = keys
                .into_iter()
                .filter_map(|key| request(&ctx, &store, &key))
                .collect();
            stream::iter(requests)
        })
        .boxed()
}

/// A look at the owner; children of resources that are gone are forgotten.
fn request(
    ctx: &Context,
    store: &Store<Guarded>,
    key: &Key,
) -> Option<Result<ReconcileRequest<Guarded>, watcher::Error>> {
    let (namespace, name) = key;
    let owner = ObjectRef::<Guarded>::new(name).within(namespace);
    if store.get(&owner).is_none() {
        ctx.children.forget(key);
        return None;
    }
    Some(Ok(ReconcileRequest::from(owner)))
}

/// A watch that fails is restarted with a growing pause; here it is only told.
fn logged<K>(event: Result<Event<K>, watcher::Error>, kind: &str) -> Option<Event<K>> {
    event
        .map_err(|error| tracing::warn!(%error, kind, "watch failed; starting it again"))
        .ok()
}
