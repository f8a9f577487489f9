//! Wires the operator together, from the client to the last farewell to the lease.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::Args;
use crate::controller::{ChildCaches, Context, Defaults, Parts, Settings, queue};
use crate::leader::{Election, Leadership};
use crate::metrics::Metrics;
use crate::server::{Served, serve};

/// Longest wait for what has begun when the operator is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a connection to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the operator until it is told to stop, or loses its lease.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = client().await?;
    let metrics = Arc::new(Metrics::new(Registry::new())?);
    let leadership = Arc::new(match args.leader_elect {
        true => Leadership::standby(),
        false => Leadership::alone(),
    });
    let children = Arc::new(ChildCaches::default());
    let (store, writer) = kube::runtime::reflector::store();
    let shutdown = on_signal()?;
    let served = Served {
        metrics: Arc::clone(&metrics),
        leadership: Arc::clone(&leadership),
        children: Arc::clone(&children),
        store: store.clone(),
    };
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    tokio::spawn(serve(listener, served, told(shutdown.clone())));
    let election = Election::new(
        client.clone(),
        &args.lease_namespace,
        &args.lease_name,
        &args.identity(),
    );
    if args.leader_elect {
        tokio::select! {
            () = election.acquire(&leadership) => {}
            () = told(shutdown.clone()) => return Ok(()),
        }
    }
    let ctx = Context::new(Parts {
        client,
        namespace: args.namespace.clone(),
        identity: args.identity(),
        settings: Settings {
            restart_backoff: args.restart_backoff,
            startup_timeout: args.startup_timeout,
        },
        defaults: Defaults {
            trainer_image: args.trainer_image.clone(),
        },
        progress_interval: args.progress_interval,
        children,
        leadership: Arc::clone(&leadership),
        metrics,
    });
    let stopped = told(shutdown.clone());
    let controller = queue::run(Arc::new(ctx), store, writer, args.concurrency, stopped);
    lead(&args, &election, &leadership, controller, shutdown).await
}

/// Reconciles as long as the lease is held.
async fn lead(
    args: &Args,
    election: &Election,
    leadership: &Leadership,
    controller: impl Future<Output = ()>,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let bounded = async {
        tokio::pin!(controller);
        tokio::select! {
            () = &mut controller => {}
            () = told(shutdown) => {
                tracing::info!("told to stop; finishing what has begun");
                if tokio::time::timeout(DRAIN_TIMEOUT, controller).await.is_err() {
                    tracing::warn!("stopping with reconciliations unfinished");
                }
            }
        }
    };
    if !args.leader_elect {
        bounded.await;
        return Ok(());
    }
    tokio::select! {
        () = bounded => {
            election.release().await.context("cannot release the lease")
        }
        lost = election.keep(leadership) => lost,
    }
}

async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context(
        "no API server: run in a cluster, or set KUBECONFIG to the path of a kubeconfig file",
    )?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).context("the API server's address or certificates cannot be used")
}

/// Becomes true with SIGTERM or SIGINT.
fn on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
        // Keep the channel open: a closed one would read as an error.
        sender.closed().await;
    });
    Ok(receiver)
}

async fn told(mut shutdown: watch::Receiver<bool>) {
    // An error means that the sender is gone, which only the end of the runtime does.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
