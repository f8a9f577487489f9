//! Trains with every rank on a thread of its own, and compares what comes out.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use prometheus::Registry;
use tch::Tensor;
use torch_ext::Store;
use trainer::engine::Precision;
use trainer::metrics::{Labels, Published, TrainerMetrics, Window};
use trainer::parallel::{Comm, Rank, Rendezvous};
use trainer::plan::{Place, RunPlan, Volumes};
use trainer::train::{Console, Reporter, Session, Stop, Summary};
use vlft_crds::load::load_file;

use crate::fixture::Fixture;

/// Weights by name, the validation loss and the last loss.
pub type Result = (BTreeMap<String, Tensor>, f64, f64);

pub const TRAINING: &str = "  training: { maxSteps: STEPS, globalBatchSize: 8, microBatchSize: MICRO, \
                        learningRate: 1.0e-3, warmupSteps: 5, weightDecay: 0.1 }\n";

pub fn spec(method: &str, steps: u64, micro: i64) -> String {
    let training = TRAINING.replace("STEPS", &steps.to_string());
    let training = training.replace("MICRO", &micro.to_string());
    format!("  workers: {{ device: CPU }}\n  method: {method}\n{training}")
}

/// Trains with every rank on a thread of its own; returns what rank 0 has.
pub fn train(fixture: &Fixture, spec: &str, ranks: i64, run: &str, precision: Precision) -> Result {
    let mut all = on_ranks(fixture, spec, ranks, run, precision, result).into_iter();
    let first = all.next().unwrap();
    for other in all {
        assert_eq!(
            difference(&first, &other),
            0.0,
            "ranks differ from each other"
        );
    }
    first
}

/// Trains, and says what `see` sees of each rank's finished session, by rank.
pub fn on_ranks<T: Send>(
    fixture: &Fixture,
    spec: &str,
    ranks: i64,
    run: &str,
    precision: Precision,
    see: impl Fn(&Session, Summary) -> T + Sync,
) -> Vec<T> {
    fixture.write(spec);
    let store = Store::serve(0, Duration::from_secs(60)).unwrap();
    let port = store.port();
    let one = |rank: i64| {
        let place = Rank {
            rank,
            world_size: ranks,
            local_rank: rank,
        };
        let (session, summary) = session(fixture, place, port, run, precision);
        see(&session, summary)
    };
    let one = &one;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..ranks).map(|r| scope.spawn(move || one(r))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn session(
    fixture: &Fixture,
    rank: Rank,
    port: u16,
    run: &str,
    precision: Precision,
) -> (Session, Summary) {
    let mut document = load_file(&fixture.document()).unwrap();
    document.spec.workers.processes_per_replica = Some(rank.world_size);
    let run_folder = fixture.path(run);
    let place = Place {
        volumes: &Volumes::parse(&[]).unwrap(),
        run_folder: &run_folder,
        attempt: 1,
        local_rank: 0,
        model_folder: fixture.path("out"),
        adapter_folder: fixture.path("adapter"),
    };
    let mut plan = RunPlan::new(document.spec, place).unwrap();
    plan.model.engine.precision = precision;
    let meeting = Rendezvous {
        serve: false,
        host: "127.0.0.1".into(),
        port,
        own_address: "127.0.0.1".into(),
        timeout: Duration::from_secs(120),
    };
    let comm = Comm::connect(rank, &meeting, tch::Device::Cpu).unwrap();
    let mut session = Session::open(plan, reporter(rank), Stop::default(), comm).unwrap();
    let summary = session.train().unwrap();
    (session, summary)
}

fn result(session: &Session, summary: Summary) -> Result {
    let weights = session.trained().unwrap().into_iter();
    let weights = weights.map(|(name, weight)| (name, weight.copy()));
    let losses = (
        summary.validation_loss.unwrap(),
        summary.final_loss.unwrap(),
    );
    (weights.collect(), losses.0, losses.1)
}

fn reporter(rank: Rank) -> Reporter {
    let labels = Labels {
        finetune: "several".into(),
        finetune_namespace: "test".into(),
        attempt: 1,
        rank: rank.rank,
    };
    Reporter {
        metrics: TrainerMetrics::new(&Registry::new(), &labels).unwrap(),
        published: Published::default(),
        console: Console::Silent,
        gpu: None,
        volume: "/".into(),
        window: Window::new(1),
        log_every_steps: 1,
        counts: rank.is_first(),
    }
}

/// Largest difference of a tensor or a loss, relative to its norm.
pub fn difference(a: &Result, b: &Result) -> f64 {
    let relative = |x: &Tensor, y: &Tensor| {
        let off = (x - y).norm().double_value(&[]);
        off / y.norm().double_value(&[]).max(1e-30)
    };
    assert_eq!(a.0.len(), b.0.len());
    let weights =
        a.0.iter()
            .map(|(name, tensor)| relative(tensor, &b.0[name]));
    weights.fold(loss_difference(a, b), f64::max)
}

pub fn loss_difference(a: &Result, b: &Result) -> f64 {
    let relative = |x: f64, y: f64| (x - y).abs() / y.abs();
    relative(a.1, b.1).max(relative(a.2, b.2))
}

pub const FULL: &str = "{ full: {} }";
pub const LORA: &str = "{ lora: { rank: 4, dropout: 0.0 }, towers: { vision: { train: true } } }";
