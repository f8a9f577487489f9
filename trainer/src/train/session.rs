//! A run that is ready to take its next step: data, model, optimizer and store, put together
//! from a plan, and continued from the last complete checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::checkpointer::Checkpointer;
use super::reporter::Reporter;
use super::step::StepSettings;
use super::{State, Stop, snapshot, trainable};
use crate::checkpoint::{Checkpoint, Environment, Store, Trained, digest, newest_complete};
use crate::data::{DataLoader, Dataset, Encoder, LoaderOptions};
use crate::engine::UnitModel;
use crate::error::{Error, Result};
use crate::models;
use crate::optim::{AdamW, Schedule};
use crate::parallel::{Comm, Rank};
use crate::plan::RunPlan;

/// Everything a run holds.
pub struct Session {
    pub(super) plan: RunPlan,
    pub(super) model: UnitModel,
    pub(super) optimizer: AdamW,
    pub(super) checkpoints: Checkpointer,
    pub(super) state: State,
    pub(super) batches: DataLoader,
    validation: Option<(Arc<Dataset>, Arc<Encoder>)>,
    pub(super) schedule: Schedule,
    pub(super) settings: StepSettings,
    pub(super) total_steps: u64,
    /// Training records.
    pub(super) samples: usize,
    pub(super) environment: Environment,
    /// What must be equal for a bit-exact resume.
    pub(super) fingerprint: Value,
    pub(super) reporter: Reporter,
    pub(super) stop: Stop,
}

impl Session {
    /// Opens data and model, takes the fence of the run's folder, and loads the last complete
    /// checkpoint if there is one.
    ///
    /// The first rank alone writes to the run's folder; the others wait until it has taken the
    /// fence, and then read the same checkpoint.
    pub fn open(plan: RunPlan, reporter: Reporter, stop: Stop, comm: Comm) -> Result<Self> {
        reporter.phase("Starting");
        let encoder = open_encoder(&plan)?;
        let dataset = Arc::new(Dataset::open(&plan.train_data)?);
        let validation = match &plan.validation_data {
            Some(options) => Some((Arc::new(Dataset::open(options)?), Arc::clone(&encoder))),
            None => None,
        };
        let sharding = comm.sharding(plan.stage, plan.offload);
        let mut model = models::load_sharded(&plan.model_folder, &plan.model, sharding)?;
        let spans = model
            .parameters()
            .buffers()
            .iter()
            .flat_map(|buffer| &buffer.spans);
        trainable::check(&plan.model.method, spans.map(|span| span.name.as_str()))?;
        let mut optimizer = AdamW::new(model.parameters().buffers(), plan.optimizer)?;
        let (store, last_checkpoint) = open_store(&plan, &comm)?;
        let samples = dataset.len();
        let environment = environment(&plan, comm.rank().world_size);
        let fingerprint = fingerprint(&plan, &dataset)?;
        let mut state = State::default();
        if let Some(checkpoint) = &last_checkpoint {
            let buffers = model.parameters_mut().buffers_mut();
            snapshot::restore(checkpoint, buffers, &mut optimizer)?;
            model.parameters_mut().refresh(true)?;
            state = state_of(checkpoint)?;
            let differences = checkpoint.manifest.differences(&fingerprint, &environment);
            reporter.resumed(checkpoint, &differences);
        }
        let total_steps = plan.total_steps(samples);
        reporter.begin(plan.attempt, total_steps, &state);
        let options = LoaderOptions::training(plan.batch.micro_batch_size as usize, plan.seed);
        let options = share_of(options, &comm);
        let sharded = model.parameters().sharding().is_sharded();
        let last = last_checkpoint.map(|found| (found.manifest.step, found.folder));
        Ok(Self {
            checkpoints: Checkpointer::new(&plan.run_folder, store, comm.clone(), sharded, last),
            batches: DataLoader::new(dataset, encoder, &options, state.cursor)?,
            schedule: plan.schedule(total_steps),
            settings: StepSettings {
                seed: plan.seed,
                max_grad_norm: plan.max_grad_norm,
                comm,
            },
            plan,
            model,
            optimizer,
            state,
            validation,
            total_steps,
            samples,
            environment,
            fingerprint,
            reporter,
            stop,
        })
    }

    /// A fresh pass over the validation data; `None` if there is none.
    pub(super) fn validation_batches(&self) -> Result<Option<DataLoader>> {
        let Some((dataset, encoder)) = &self.validation else {
            return Ok(None);
        };
        let options = LoaderOptions::evaluation(self.plan.batch.micro_batch_size as usize);
        let options = share_of(options, self.comm());
        let (dataset, encoder) = (Arc::clone(dataset), Arc::clone(encoder));
        DataLoader::new(dataset, encoder, &options, State::default().cursor).map(Some)
    }

    pub fn model(&self) -> &UnitModel {
        &self.model
    }

    /// What the run has trained so far, whole; where ranks hold slices, as the last checkpoint
    /// has it.
    pub fn trained(&self) -> Result<Trained> {
        let store = self.model.parameters();
        if !store.sharding().is_sharded() {
            return snapshot::trained(store);
        }
        let last = self.checkpoints.last_folder();
        let last = last.ok_or_else(|| Error::Bug("nothing to export: no checkpoint yet".into()))?;
        snapshot::trained_of(last, store)
    }

    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    pub fn comm(&self) -> &Comm {
        &self.settings.comm
    }

    /// Fails with Drained if a later attempt has taken over the run's folder.
    pub fn check_fence(&self) -> Result<()> {
        self.checkpoints.check_fence()
    }
}

/// The first rank takes the fence; then all look for the newest checkpoint.
fn open_store(plan: &RunPlan, comm: &Comm) -> Result<(Option<Store>, Option<Checkpoint>)> {
    let open = || Store::open(&plan.run_folder, plan.attempt, plan.retention);
    let store = comm.rank().is_first().then(open).transpose()?;
    comm.barrier()?;
    let mut warn = |warning: String| tracing::warn!("{warning}");
    let found = newest_complete(&plan.run_folder, &mut warn)?;
    let step = found
        .as_ref()
        .map_or(-1.0, |found| found.manifest.step as f64);
    let Rank { world_size, .. } = comm.rank();
    if comm.sum([step, step * step])? != [step, step * step].map(|sum| sum * world_size as f64) {
        return Err(Error::Storage(format!(
            "{}: the ranks do not see the same checkpoints; every pod needs the same volume",
            plan.run_folder.display()
        )));
    }
    Ok((store, found))
}

/// The loader of this rank.
fn share_of(options: LoaderOptions, comm: &Comm) -> LoaderOptions {
    let Rank {
        rank, world_size, ..
    } = comm.rank();
    options.shared(rank as usize, world_size as usize)
}

fn open_encoder(plan: &RunPlan) -> Result<Arc<Encoder>> {
    let processor = models::open_processor(&plan.model_folder, plan.pixels)?;
    Ok(Arc::new(Encoder::open(
        &plan.model_folder,
        processor,
        plan.limit,
    )?))
}

fn state_of(checkpoint: &Checkpoint) -> Result<State> {
    let manifest = &checkpoint.manifest;
    let state: State = serde_json::from_value(manifest.state.clone()).map_err(|cause| {
        Error::Storage(format!(
            "{}: the manifest's state: {cause}",
            checkpoint.folder.display()
        ))
    })?;
    Ok(State {
        step: manifest.step,
        cursor: manifest.cursor,
        ..state
    })
}

fn environment(plan: &RunPlan, world_size: i64) -> Environment {
    Environment {
        trainer: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch: torch_ext::torch_version(),
        world_size,
        threads: i64::from(tch::get_num_threads()),
        cpu_capability: torch_ext::cpu_capability(),
        device: format!("{:?}", plan.model.engine.device),
    }
}

/// The parts of the plan that decide the numbers, and nothing else.
fn fingerprint(plan: &RunPlan, data: &Dataset) -> Result<Value> {
    let spec = &plan.spec;
    let mut training = to_value(&spec.training)?;
    let mut dataset = to_value(&spec.dataset)?;
    let without = |value: &mut Value, keys: &[&str]| {
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|key, _| !keys.contains(&key.as_str()));
        }
    };
    without(&mut training, &["logEverySteps", "maxNonFiniteSteps"]);
    // Volumes may be mounted elsewhere; number and digest of the records tell other data apart.
    without(&mut dataset, &["train", "validation", "preflight"]);
    Ok(json!({
        "model": model_fingerprint(&plan.model_folder)?,
        "records": data.len(),
        "dataDigests": data.digests().collect::<Vec<_>>(),
        "dataset": dataset,
        "method": to_value(&spec.method)?,
        "precision": format!("{:?}", plan.model.engine.precision),
        "training": training,
        "microBatchSize": plan.batch.micro_batch_size,
        "accumulationSteps": plan.batch.accumulation_steps,
    }))
}

fn to_value(part: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(part).map_err(|cause| Error::Bug(format!("plan: {cause}")))
}

/// Configuration by digest, weights by a digest of samples: reading all would cost minutes.
fn model_fingerprint(folder: &Path) -> Result<Value> {
    let failed =
        |path: &Path, cause: &std::io::Error| Error::User(format!("{}: {cause}", path.display()));
    let config = folder.join("config.json");
    let (digest, _) = digest::of_file(&config).map_err(|cause| failed(&config, &cause))?;
    let entries = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut files: Vec<PathBuf> = entries.map_err(|cause| failed(folder, &cause))?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "safetensors"));
    files.sort();
    let sampled = |path: &PathBuf| digest::sampled(path).map_err(|cause| failed(path, &cause));
    let weights: Vec<String> = files.iter().map(sampled).collect::<Result<_>>()?;
    Ok(json!({ "config": digest, "weights": weights }))
}
