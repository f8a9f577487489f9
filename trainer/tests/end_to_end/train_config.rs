//! The flat `train_config.yaml` of other trainers, as it is.

use std::fs;
use std::process::{Command, Output};

use vlft_crds::contract::exit_code::{self, DATA_ERROR, USER_ERROR};
use vlft_crds::load::load_str;
use vlft_crds::training::Precision;

use crate::fixture::{Fixture, copy, each};

/// As published, but for the numbers that make it long.
const CONFIG: &str = "\
model_name: qwen-vl-7b
train_data: data/metadata.jsonl
image_root: data/images
trainer:
  strategy: deepspeed_stage_3
  batch_size: 2
  gradient_accumulation: 4
  learning_rate: 2e-5
  max_length: 1024
";

/// A fixture with the configuration, and a local Hugging Face cache that has the model it names.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("train_config.yaml", CONFIG);
    let repo = "hub/models--Qwen--Qwen2-VL-7B-Instruct";
    let snapshot = fixture.path(&format!("{repo}/snapshots/0123abc"));
    copy(&fixture.path("model"), &snapshot);
    fs::create_dir(fixture.path(&format!("{repo}/refs"))).unwrap();
    fixture.write(&format!("{repo}/refs/main"), "0123abc");
    fixture
}

fn trainer(fixture: &Fixture, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .current_dir(fixture.path(""))
        .env("HF_HOME", fixture.path(""))
        .env_remove("HF_HUB_CACHE")
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap()
}

/// Trains on the CPU; what it said.
fn run(fixture: &Fixture, more: &[&str]) -> (Option<i32>, String) {
    let fixed = [
        "run",
        "--config",
        "train_config.yaml",
        "--output_dir",
        "output",
        "--device",
        "CPU",
    ];
    let output = trainer(fixture, &[&fixed[..], more].concat());
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), log)
}

#[test]
fn it_runs_as_it_is_and_leaves_a_model_in_output_dir() {
    for (flags, notice) in [
        (&[][..], "done: 3 steps"),
        (&["--bf16"], "done: 3 steps"),
        (&["--fp16"], "trained as BFloat16Mixed"),
    ] {
        let fixture = fixture();
        let (code, log) = run(&fixture, flags);
        assert_eq!(code, Some(exit_code::COMPLETED), "{log}");
        let alias = "`qwen-vl-7b` stands for Qwen/Qwen2-VL-7B-Instruct";
        assert!(log.contains(alias) && log.contains(notice), "{log}");
        for file in [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "checkpoints",
        ] {
            assert!(fixture.path("output").join(file).exists(), "{file}");
        }
        let record = fs::read_to_string(fixture.path("output/run.json")).unwrap();
        let mixed = record.contains("\"BFloat16Mixed\"");
        assert_eq!(mixed, !flags.is_empty(), "{record}");
        let answer = trainer(
            &fixture,
            &["generate", "output", "--image", "data/images/0001.png"],
        );
        assert!(
            answer.status.success(),
            "{}",
            String::from_utf8_lossy(&answer.stderr)
        );
    }
}

#[test]
fn both_flags_at_once_and_flags_of_a_document_are_refused() {
    let fixture = fixture();
    let (code, log) = run(&fixture, &["--bf16", "--fp16"]);
    assert_eq!(code, Some(exit_code::USER_ERROR));
    assert!(log.contains("cannot be used with"), "{log}");
    fixture.document(crate::fixture::FULL);
    let output = trainer(&fixture, &["run", "run.yaml", "--bf16"]);
    assert_eq!(output.status.code(), Some(exit_code::USER_ERROR));
}

/// `image_root` ends in `images` and so do the paths: the metadata's folder decides.
#[test]
fn image_paths_are_looked_for_below_image_root_and_beside_the_metadata() {
    let plain = |fixture: &Fixture| {
        fixture.replace("data/metadata.jsonl", "images/", "");
    };
    let elsewhere = |fixture: &Fixture| {
        fs::rename(fixture.path("data/images"), fixture.path("pictures")).unwrap();
        fixture.replace("train_config.yaml", "data/images", "pictures");
        fixture.replace("data/metadata.jsonl", "images/", "");
    };
    let none = |fixture: &Fixture| {
        fixture.replace("train_config.yaml", "image_root: data/images\n", "");
    };
    let changes: [&dyn Fn(&Fixture); 4] = [&|_| (), &plain, &elsewhere, &none];
    for change in changes {
        let fixture = fixture();
        change(&fixture);
        let (code, log) = run(&fixture, &[]);
        assert_eq!(code, Some(exit_code::COMPLETED), "{log}");
    }
}

/// What is changed, the class by its exit code, and what the message must hold.
const MISTAKES: &[(&str, &str, i32, &str)] = &[
    ("batch_size: 2", "batchsize: 2", USER_ERROR, "batchsize"),
    (
        "batch_size: 2",
        "batch_size: 1000000000000",
        USER_ERROR,
        "trainer.batch_size",
    ),
    (
        "gradient_accumulation: 4",
        "gradient_accumulation: 0",
        USER_ERROR,
        "trainer.gradient_accumulation",
    ),
    (
        "learning_rate: 2e-5",
        "learning_rate: -1",
        USER_ERROR,
        "trainer.learning_rate",
    ),
    (
        "learning_rate: 2e-5",
        "learning_rate: .nan",
        USER_ERROR,
        "trainer.learning_rate",
    ),
    (
        "learning_rate: 2e-5",
        "learning_rate: .inf",
        USER_ERROR,
        "trainer.learning_rate",
    ),
    (
        "max_length: 1024",
        "max_length: 1152921504606846976",
        USER_ERROR,
        "trainer.max_length",
    ),
    (
        "max_length: 1024",
        "max_length: 1",
        USER_ERROR,
        "trainer.max_length",
    ),
    (
        "model_name: qwen-vl-7b",
        "model_name: no-such/model",
        USER_ERROR,
        "local Hugging Face cache",
    ),
    (
        "data/metadata.jsonl",
        "data/none.jsonl",
        DATA_ERROR,
        "data/none.jsonl",
    ),
    ("data/images", "data/pictures", DATA_ERROR, "data/pictures"),
    ("trainer:", "train:", USER_ERROR, "train"),
];

#[test]
fn mistakes_are_named_as_the_file_names_them() {
    each(MISTAKES, |(from, to, code, part)| {
        let fixture = fixture();
        fixture.replace("train_config.yaml", from, to);
        let (found, log) = run(&fixture, &[]);
        assert_eq!(found, Some(*code), "{to}: {log}");
        assert!(log.contains(part), "{to}: {log}");
    });
}

#[test]
fn a_converted_file_is_a_document_that_trains_to_the_same_model() {
    let fixture = fixture();
    let converted = trainer(&fixture, &["convert", "train_config.yaml", "--bf16"]);
    assert!(converted.status.success());
    let notices = String::from_utf8_lossy(&converted.stderr);
    assert!(notices.contains("stands for"), "{notices}");
    let text = String::from_utf8(converted.stdout).unwrap();
    let spec = load_str(&text).unwrap().spec;
    assert_eq!(spec.precision, Some(Precision::BFloat16Mixed));
    assert_eq!(spec.training.global_batch_size, 8);
    fixture.write("converted.yaml", &text);
    let (code, log) = run(&fixture, &["--bf16"]);
    assert_eq!(code, Some(exit_code::COMPLETED), "{log}");
    let arguments = [
        "run",
        "converted.yaml",
        "--device",
        "CPU",
        "--output_dir",
        "again",
    ];
    let again = trainer(&fixture, &arguments);
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    let weights = |file: &str| fs::read(fixture.path(file)).unwrap();
    assert_eq!(
        weights("output/model.safetensors"),
        weights("again/model/model.safetensors")
    );
}
