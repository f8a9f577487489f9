use anyhow::{Context, Result, ensure};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};

const REMEDY: &str = "run `scripts/cluster.sh up`, then \
    `export KUBECONFIG=$(scripts/cluster.sh kubeconfig)`";

/// A client of the cluster that `KUBECONFIG` names, and of no other: the default kubeconfig of
/// whoever runs the tests may be a production cluster.
pub async fn kube_client() -> Result<Client> {
    let set = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
    ensure!(
        set,
        "this test needs a cluster, and KUBECONFIG is not set: {REMEDY}"
    );
    let mut config = Config::from_kubeconfig(&KubeConfigOptions::default())
        .await
        .context("the file that KUBECONFIG names cannot be used")?;
    // A test cluster is on this machine; a proxy cannot reach it.
    config.proxy_url = None;
    Client::try_from(config).context("no client can be made from KUBECONFIG")
}
