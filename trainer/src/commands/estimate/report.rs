//! The answer as a table for people, or as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};
use vlft_crds::plan::estimate::Prediction;
use vlft_crds::plan::memory::MemoryParts;
use vlft_crds::plan::preflight::gibibytes;
use vlft_crds::plan::resolve;

use super::Question;

const GB: f64 = 1e9;

/// Two tables: memory and time, one line for each strategy.
pub(super) fn text(question: &Question, predictions: &[Prediction]) -> String {
    let mut text = heading(question);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\nMemory of one GPU at the peak of a step, GiB:");
    let parts = MemoryParts::default();
    let names = named(&parts).map(|(name, _)| format!("{name:>11}"));
    let _ = writeln!(
        text,
        "{:<9}{:>8} {:<7}{}",
        "strategy",
        "total",
        "fits",
        names.concat()
    );
    for prediction in predictions {
        let fits = if prediction.fits { "yes" } else { "no" };
        let cells = named(&prediction.memory).map(|(_, bytes)| format!("{:>11.1}", gib(bytes)));
        let _ = writeln!(
            text,
            "{:<9}{:>8.1} {fits:<7}{}",
            prediction.strategy.as_str(),
            gib(prediction.memory.total()),
            cells.concat()
        );
    }
    let _ = writeln!(text, "\nOne optimizer step:");
    let _ = writeln!(
        text,
        "{:<9}{:>13}{:>12}{:>11}{:>12}{:>18}{:>12}",
        "strategy", "micro-batch", "sent GB", "compute s", "network s", "step s", "tokens/s"
    );
    for prediction in predictions {
        text.push_str(&time_line(question, prediction));
    }
    text.push_str(
        "\nA step takes the shorter time if all communication hides behind compute, the longer if \
         none does.\nFigures are predictions from arithmetic, not measurements; docs/memory.md \
         lists the assumptions.",
    );
    text
}

fn heading(question: &Question) -> String {
    let Question {
        name,
        shape,
        spec,
        hardware,
        interconnect,
        tflops,
        trained,
    } = question;
    let recompute = match resolve::gradient_checkpointing(spec) {
        true => "with",
        false => "without",
    };
    format!(
        "{name}: {} parameters, {trained} of them trained\n\
         {:?}, {recompute} gradient checkpointing, {} tokens a sample, {} samples a step\n\
         {} GPUs of {}, {tflops} TFLOP/s achieved on each, {} between them\n",
        shape.parameters(),
        resolve::precision(spec),
        spec.dataset.max_length,
        spec.training.global_batch_size,
        spec.workers.world_size(),
        gibibytes(hardware.gpu_memory),
        interconnect.name(),
    )
}

fn time_line(question: &Question, prediction: &Prediction) -> String {
    let sent = prediction.traffic.sent(question.spec.workers.world_size());
    let (short, long) = prediction.step_seconds();
    let batch = format!(
        "{} x {}",
        prediction.micro_batch_size, prediction.accumulation_steps
    );
    let step = format!("{short:.2} to {long:.2}");
    format!(
        "{:<9}{batch:>13}{:>12.2}{:>11.2}{:>12.2}{step:>18}{:>12.0}\n",
        prediction.strategy.as_str(),
        sent as f64 / GB,
        prediction.compute_seconds,
        prediction.communication_seconds,
        prediction.tokens as f64 / long,
    )
}

/// Every part with its name, in the order of the columns.
fn named(parts: &MemoryParts) -> [(&'static str, i64); 10] {
    let MemoryParts {
        weights,
        masters,
        gradients,
        optimizer,
        working,
        activations,
        vision,
        logits,
        overhead,
        host,
    } = *parts;
    [
        ("weights", weights),
        ("masters", masters),
        ("gradients", gradients),
        ("optimizer", optimizer),
        ("working", working),
        ("activ.", activations),
        ("vision", vision),
        ("logits", logits),
        ("overhead", overhead),
        ("host", host),
    ]
}

fn gib(bytes: i64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// The same for programs; bytes and seconds.
pub(super) fn json(question: &Question, predictions: &[Prediction]) -> String {
    let ranks = question.spec.workers.world_size();
    let strategies: Vec<Value> = predictions
        .iter()
        .map(|prediction| {
            let (short, long) = prediction.step_seconds();
            let traffic = prediction.traffic;
            json!({
                "strategy": prediction.strategy,
                "fits": prediction.fits,
                "microBatchSize": prediction.micro_batch_size,
                "accumulationSteps": prediction.accumulation_steps,
                "memory": prediction.memory.for_status(Some(question.hardware.gpu_memory)),
                "traffic": {
                    "allReduceBytes": traffic.all_reduce,
                    "reduceScatterBytes": traffic.reduce_scatter,
                    "allGatherBytes": traffic.all_gather,
                    "sentBytesPerRank": traffic.sent(ranks),
                },
                "computeSeconds": prediction.compute_seconds,
                "communicationSeconds": prediction.communication_seconds,
                "stepSeconds": [short, long],
            })
        })
        .collect();
    let answer = json!({
        "kind": "prediction",
        "model": question.name,
        "parameters": question.shape.parameters(),
        "trainedParameters": question.trained,
        "gpus": ranks,
        "gpuBytes": question.hardware.gpu_memory,
        "tflops": question.tflops,
        "interconnect": question.interconnect.name(),
        "strategies": strategies,
    });
    format!("{answer:#}")
}
