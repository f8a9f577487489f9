use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: EstimateArgs,
}

fn args(words: &[&str]) -> EstimateArgs {
    let words = ["estimate"].iter().chain(words);
    Cli::try_parse_from(words)
        .unwrap_or_else(|e| panic!("{e}"))
        .args
}

fn problem(words: &[&str]) -> String {
    match resolve_question(&args(words)) {
        Ok(_) => panic!("{words:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

const SEVEN_B: &str = "Qwen/Qwen2-VL-7B-Instruct";

#[test]
fn sixteen_gpus_are_two_nodes() {
    let words = ["--model", SEVEN_B, "--method", "full", "--gpus", "16"];
    let question = resolve_question(&args(&words)).unwrap();
    let workers = &question.spec.workers;
    assert_eq!((workers.replicas, workers.gpus_per_replica()), (2, 8));
    assert_eq!(question.interconnect, Interconnect::Ethernet400);
    assert_eq!(question.trained, question.shape.parameters());
    assert_eq!(question.spec.training.global_batch_size % 16, 0);
}

#[test]
fn the_answer_is_labelled_and_has_a_line_for_each_strategy() {
    let words = ["--model", SEVEN_B, "--method", "full", "--gpus", "8"];
    let question = resolve_question(&args(&words)).unwrap();
    let predictions: Vec<_> = [Strategy::Ddp, Strategy::Zero3]
        .map(|strategy| {
            let mut spec = question.spec.clone();
            spec.parallelism.strategy = strategy;
            predict(&question.shape, &spec, question.hardware)
        })
        .into();
    let text = report::text(&question, &predictions);
    for word in [
        "DDP",
        "Zero3",
        "predictions",
        "8291375616",
        "nvlink",
        "80.0 GiB",
    ] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&report::json(&question, &predictions)).unwrap();
    assert_eq!(json["kind"], "prediction");
    assert_eq!(json["strategies"][0]["fits"], false);
    assert_eq!(json["strategies"][1]["fits"], true);
}

#[test]
fn bad_input_is_named_with_its_remedy() {
    let at = |words: &[&str]| problem(words);
    assert!(at(&["--model", "org/none"]).contains("--config"));
    let text = at(&["--model", SEVEN_B, "--gpus", "12"]);
    assert!(text.contains("--gpus-per-node 8"), "{text}");
    let text = at(&["--model", SEVEN_B, "--gpu-memory", "lots"]);
    assert!(
        text.contains("--gpu-memory") && text.contains("80Gi"),
        "{text}"
    );
    let text = at(&["--model", SEVEN_B, "--tflops", "-1"]);
    assert!(text.contains("--tflops"), "{text}");
    assert!(at(&["nowhere.yaml"]).contains("nowhere.yaml"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, r#"{"model_type": "bert"}"#).unwrap();
    let text = at(&["--config", path.to_str().unwrap()]);
    assert!(
        text.contains("config.json") && text.contains("bert"),
        "{text}"
    );
}

#[test]
fn a_file_without_a_model_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.yaml");
    let text = "apiVersion: vlft.dev/v1alpha1\nkind: VLFineTune\nmetadata: { name: a }\nspec:\n  \
                model: { uri: pvc://m/a }\n  dataset: { train: [{ uri: pvc://d/a }] }\n";
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    assert!(problem(&[file]).contains("spec.model.baseModel"));
    let question = resolve_question(&args(&[file, "--model", SEVEN_B])).unwrap();
    assert_eq!(question.name, SEVEN_B);
}
