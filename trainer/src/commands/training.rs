//! What `run` and `launch` have in common: a plan becomes a trained, exported model.

use std::path::PathBuf;

use prometheus::Registry;
use vlft_crds::VLFineTune;

use super::device;
use crate::checkpoint::Export;
use crate::error::Result;
use crate::metrics::{GpuMonitor, Labels, Published, Server, TrainerMetrics, Window};
use crate::parallel::{Comm, Rank, Rendezvous};
use crate::plan::{Place, RunPlan, Volumes};
use crate::run_folder::RunRecord;
use crate::train::{Console, Identity, Reporter, Session, Stop, Summary};

/// One training job of this process.
pub(super) struct Job {
    pub document: VLFineTune,
    pub rank: Rank,
    /// Absent means: no other processes.
    pub rendezvous: Option<Rendezvous>,
    pub identity: Identity,
    pub volumes: Volumes,
    pub run_folder: PathBuf,
    pub model_folder: PathBuf,
    pub adapter_folder: PathBuf,
    /// Paths in reports are relative to this folder.
    pub volume: PathBuf,
    pub console: Console,
    /// Absent means: serve no metrics.
    pub metrics_port: Option<u16>,
}

/// What a finished job leaves.
pub(super) struct Outcome {
    pub summary: Summary,
    pub model: PathBuf,
}

impl Job {
    /// Trains and exports. `published` shows the progress while it goes on.
    pub fn work(self, published: &Published) -> Result<Outcome> {
        let stop = Stop::on_signals()?;
        device::check(&self.document.spec.workers)?;
        let place = Place {
            volumes: &self.volumes,
            run_folder: &self.run_folder,
            attempt: self.identity.attempt,
            local_rank: self.rank.local_rank as usize,
            model_folder: self.model_folder.clone(),
            adapter_folder: self.adapter_folder.clone(),
        };
        let plan = RunPlan::new(self.document.spec.clone(), place)?;
        let registry = Registry::new();
        let reporter = self.reporter(&plan, &registry, published)?;
        let server = self
            .metrics_port
            .map(|port| Server::start(port, registry, published.clone()));
        let _server = server.transpose()?;
        torch_ext::set_deterministic(!plan.model.engine.device.is_cuda())?;
        let comm = match &self.rendezvous {
            Some(meeting) => Comm::connect(self.rank, meeting, plan.model.engine.device)?,
            None => Comm::Solo,
        };
        let record = RunRecord::new(&plan);
        let mut session = Session::open(plan, reporter, stop, comm)?;
        if self.rank.is_first() {
            record.write(&self.run_folder)?;
        }
        let summary = session.train()?;
        session.reporter().phase("Exporting");
        let model = match self.rank.is_first() {
            true => export(&session, &record)?,
            false => self.model_folder,
        };
        Ok(Outcome { summary, model })
    }

    fn reporter(
        &self,
        plan: &RunPlan,
        registry: &Registry,
        published: &Published,
    ) -> Result<Reporter> {
        let labels = Labels {
            finetune: self.identity.name.clone(),
            finetune_namespace: self.identity.namespace.clone(),
            attempt: self.identity.attempt,
            rank: self.rank.rank,
        };
        let gpu = plan.model.engine.device.is_cuda();
        Ok(Reporter {
            metrics: TrainerMetrics::new(registry, &labels)?,
            published: published.clone(),
            console: self.console,
            gpu: gpu.then(|| GpuMonitor::new(self.rank.local_rank as usize)),
            volume: self.volume.clone(),
            window: Window::new(plan.log_every_steps as usize),
            log_every_steps: plan.log_every_steps,
            counts: self.rank.is_first(),
        })
    }
}

fn export(session: &Session, record: &RunRecord) -> Result<PathBuf> {
    let plan = session.plan();
    let trained = session.trained()?;
    let export = Export {
        source: &plan.model_folder,
        base_name: record.base_name(),
        method: &plan.model.method,
        trained: &trained,
        max_shard_bytes: plan.export.max_shard_bytes,
    };
    let target = &plan.export;
    export.write(
        &target.model_folder,
        &target.adapter_folder,
        target.adapter,
        &|| session.check_fence(),
    )
}
