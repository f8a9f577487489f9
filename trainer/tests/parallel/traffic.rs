//! What ranks exchange is what `trainer estimate` says they do, byte for byte.

use std::fs;

use trainer::engine::Precision;
use vlft_crds::load::load_file;
use vlft_crds::plan::estimate::{Traffic, traffic};
use vlft_crds::plan::model_shape::{ModelShape, read_config};

use crate::fixture::Fixture;
use crate::harness::{FULL, LORA, on_ranks, spec};
use crate::zero::sharded;

#[test]
fn a_step_exchanges_the_bytes_that_the_estimate_says() {
    for method in [FULL, "{ lora: { rank: 4 } }", LORA] {
        let fixture = Fixture::new("");
        let shape = shape(&fixture);
        for (strategy, ranks, micro) in [
            ("DDP", 2, 2),
            ("Zero1", 2, 2),
            ("Zero2", 2, 2),
            ("Zero3", 2, 2),
            ("Zero3", 4, 2),
        ] {
            let run = format!("{strategy}-{ranks}");
            let spec = |steps| {
                let base = spec(method, steps, micro);
                sharded(&base, &format!("strategy: {strategy}"))
            };
            // What comes before and after the steps is the same in both.
            let short = exchanged(&fixture, &spec(2), ranks, &format!("{run}-short"));
            let long = exchanged(&fixture, &spec(3), ranks, &format!("{run}-long"));
            let mut finetune = load_file(&fixture.document()).unwrap().spec;
            finetune.workers.processes_per_replica = Some(ranks);
            let said = traffic(&shape, &finetune, 8 / micro / ranks);
            let step = Traffic {
                all_reduce: long.all_reduce - short.all_reduce,
                reduce_scatter: long.reduce_scatter - short.reduce_scatter,
                all_gather: long.all_gather - short.all_gather,
            };
            assert_eq!(step, said, "{method}, {strategy} on {ranks} ranks");
        }
    }
}

fn shape(fixture: &Fixture) -> ModelShape {
    let text = fs::read_to_string(fixture.path("model/config.json")).unwrap();
    read_config(&serde_json::from_str(&text).unwrap()).unwrap()
}

/// Bytes of all tensors that a run's collectives were called on, the same on every rank.
fn exchanged(fixture: &Fixture, spec: &str, ranks: i64, run: &str) -> Traffic {
    let see = |session: &trainer::train::Session, _| {
        let mut all = Traffic::default();
        for exchange in session.comm().traffic() {
            let bytes = i64::try_from(exchange.bytes).unwrap();
            match exchange.collective.to_string().as_str() {
                "all-reduce" => all.all_reduce = bytes,
                "reduce-scatter" => all.reduce_scatter = bytes,
                "all-gather" => all.all_gather = bytes,
                other => panic!("{other} carries no tensors"),
            }
        }
        all
    };
    let ranks = on_ranks(fixture, spec, ranks, run, Precision::Float32, see);
    assert!(ranks.iter().all(|rank| rank == &ranks[0]), "{ranks:?}");
    ranks[0]
}
