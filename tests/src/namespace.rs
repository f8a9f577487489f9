use crate::{dump_namespace, kube_client, wait_for};
use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::RwLock;
use tokio::time::timeout;

/// Tests run side by side, except those that change nodes or stop the operator.
static NODES: RwLock<()> = RwLock::const_new(());

/// No test may hang longer.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A namespace that enforces the restricted pod security standard, for one test.
pub struct TestNamespace {
    pub name: String,
    pub client: Client,
}

impl TestNamespace {
    /// The objects of one kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates one object from its JSON.
    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        let object: K = serde_json::from_value(object).with_context(|| format!("not a {kind}"))?;
        let created = self
            .api::<K>()
            .create(&PostParams::default(), &object)
            .await;
        created.with_context(|| format!("cannot create the {kind}"))
    }
}

/// Runs `test` in a namespace of its own. When it fails (or panics, or takes 10 minutes), all
/// objects, events and logs of the namespace go to `out/<name>/`. The namespace is removed in the
/// end unless `VLFT_KEEP` is 1.
pub async fn with_temp_ns(
    name: &str,
    test: impl AsyncFnOnce(&TestNamespace) -> Result<()>,
) -> Result<()> {
    let _shared = NODES.read().await;
    run(name, test, false).await
}

/// Like [`with_temp_ns`], with no other test of the same binary at work: for tests that drain,
/// cut or re-equip nodes, or stop the operator. Returns when the namespace is really gone.
pub async fn with_temp_ns_exclusive(
    name: &str,
    test: impl AsyncFnOnce(&TestNamespace) -> Result<()>,
) -> Result<()> {
    let _alone = NODES.write().await;
    run(name, test, true).await
}

async fn run(
    name: &str,
    test: impl AsyncFnOnce(&TestNamespace) -> Result<()>,
    await_end: bool,
) -> Result<()> {
    let ns = create(name).await?;
    let outcome = match AssertUnwindSafe(timeout(TIMEOUT, test(&ns)))
        .catch_unwind()
        .await
    {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(anyhow!("{name} took longer than {} s", TIMEOUT.as_secs())),
        // The panic's message is already on standard error.
        Err(panic) => Err(anyhow!("{name} panicked: {}", message(panic.as_ref()))),
    };
    if outcome.is_err() {
        match timeout(
            Duration::from_secs(60),
            dump_namespace(&ns.client, &ns.name, name),
        )
        .await
        {
            Ok(Ok(folder)) => eprintln!("{name}: the state is in {}", folder.display()),
            Ok(Err(error)) => eprintln!("{name}: the state could not be dumped: {error:#}"),
            Err(_) => eprintln!("{name}: dumping the state took too long"),
        }
    }
    if std::env::var("VLFT_KEEP").is_ok_and(|keep| keep == "1") {
        eprintln!("{name}: VLFT_KEEP leaves namespace {}", ns.name);
        return outcome;
    }
    let removed = remove(&ns, await_end).await;
    outcome.and(removed)
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// A name that is free: two runs of one test may meet on one cluster.
async fn create(name: &str) -> Result<TestNamespace> {
    let client = kube_client().await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let name = format!("{name}-{:x}", (now.as_micros() & 0xff_ffff) as u64);
    let namespace: Namespace = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "vlft.dev/test": "true",
            },
        },
    }))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .with_context(|| format!("cannot create namespace {name}; is the cluster up?"))?;
    let ns = TestNamespace { name, client };
    // Pods are refused until the controller has made it.
    let accounts = ns.api::<ServiceAccount>();
    wait_for(
        "the default service account",
        Duration::from_secs(30),
        async || Ok(accounts.get_opt("default").await?),
    )
    .await?;
    Ok(ns)
}

async fn remove(ns: &TestNamespace, await_end: bool) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(ns.client.clone());
    namespaces
        .delete(&ns.name, &DeleteParams::default())
        .await
        .with_context(|| format!("cannot remove namespace {}", ns.name))?;
    if !await_end {
        return Ok(());
    }
    wait_for(
        "the namespace to be gone",
        Duration::from_secs(90),
        async || Ok(namespaces.get_opt(&ns.name).await?.is_none().then_some(())),
    )
    .await
}
