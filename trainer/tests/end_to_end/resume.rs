//! Runs that are interrupted end as those that are not; changed runs say that they are.

use std::collections::BTreeMap;

use vlft_crds::contract::{TerminationReport, exit_code};
use vlft_crds::status::FailureClass;

use crate::fixture::{FULL, Fixture, RECORDS, lora};
use crate::process::Run;

const STEPS: i64 = 40;

/// Accumulation, warm-up, dropout; 6 of 23 records a step.
fn long() -> String {
    let steps = format!("maxSteps: {STEPS}, globalBatchSize: 6");
    lora()
        .replace("maxSteps: 6, globalBatchSize: 4", &steps)
        .replace("everySteps: 3", "everySteps: 5")
}

#[test]
fn sigterm_makes_a_checkpoint_and_the_next_run_ends_as_an_undisturbed_one() {
    let fixture = Fixture::new();
    let expected = undisturbed(&fixture);
    let mut run = fixture.start(&long(), "out");
    run.wait_for("\"step\":3,");
    run.signal("-TERM");
    let drained = run
        .end()
        .ended_as(FailureClass::Drained, exit_code::DRAINED);
    let step = drained.progress.step;
    let made = drained.progress.last_checkpoint.unwrap();
    assert_eq!(made.step, step, "{}", drained.message);
    assert!(drained.message.contains(&format!("step {step} of {STEPS}")));
    let cursor = cursor(&fixture, step);
    assert_eq!(cursor, step as u64 * 6 % RECORDS as u64);
    assert_ne!(cursor, 0, "step {step} is at the end of an epoch");
    ends_the_same(&fixture, &expected, step);
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint_and_ends_the_same() {
    let fixture = Fixture::new();
    let expected = undisturbed(&fixture);
    let mut run = fixture.start(&long(), "out");
    run.wait_for("\"step\":7,");
    run.signal("-KILL");
    let killed = run.end();
    assert_eq!((killed.code, killed.report), (None, None));
    // Killed in the middle of a checkpoint, say.
    std::fs::create_dir(fixture.path("out/checkpoints/.tmp-step-00000010")).unwrap();
    let step = newest(&fixture);
    assert_ne!(cursor(&fixture, step), 0);
    ends_the_same(&fixture, &expected, step);
}

/// Digests of all that a run of [`long`] leaves, and its report.
fn undisturbed(fixture: &Fixture) -> (BTreeMap<String, String>, TerminationReport) {
    let report = fixture.start(&long(), "undisturbed").end().completed();
    (fixture.digests("undisturbed"), report)
}

fn ends_the_same(
    fixture: &Fixture,
    (files, report): &(BTreeMap<String, String>, TerminationReport),
    from: i64,
) {
    let resumed = fixture.train(&long()).completed();
    assert_eq!(resumed.progress.resumed_from.as_ref().unwrap().step, from);
    assert_eq!(resumed.progress.exact_resume, Some(true));
    assert_eq!(resumed.validation_loss, report.validation_loss);
    assert_eq!(&fixture.digests("out"), files);
}

fn newest(fixture: &Fixture) -> i64 {
    let names = fixture.names("out/checkpoints");
    let steps = names.iter().filter_map(|name| name.strip_prefix("step-"));
    steps.map(|step| step.parse().unwrap()).max().unwrap()
}

/// Where in its epoch a checkpoint stands, records.
fn cursor(fixture: &Fixture, step: i64) -> u64 {
    let path = format!("out/checkpoints/step-{step:08}/manifest.json");
    let text = std::fs::read_to_string(fixture.path(&path)).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    manifest["cursor"]["sample"].as_u64().unwrap()
}

/// What a run says that goes on with `change` made to document or data.
fn changed(change: impl FnOnce(&Fixture, &mut String)) -> (TerminationReport, String) {
    let fixture = Fixture::new();
    fixture.train(FULL).completed();
    let mut spec = FULL.to_owned();
    change(&fixture, &mut spec);
    let ended = fixture.train(&spec);
    let log = ended.log.clone();
    (ended.completed(), log)
}

#[test]
fn a_changed_run_goes_on_and_says_what_is_no_longer_the_same() {
    type Change = fn(&Fixture, &mut String);
    let table: [(Change, &str); 5] = [
        (
            |_, spec| *spec = spec.replace("1.0e-3", "2.0e-3"),
            "plan.training.learningRate: 0.001 -> 0.002",
        ),
        (
            |_, spec| *spec = spec.replace("maxSteps: 6", "maxSteps: 6, seed: 7"),
            "plan.training.seed: 42 -> 7",
        ),
        (
            |fixture, _| fixture.replace_line(3, br#"{"image": "images/0003.png", "text": "2"}"#),
            "plan.data",
        ),
        (
            |fixture, _| fixture.replace_line(RECORDS, b""),
            "plan.records: 23 -> 22",
        ),
        (
            |fixture, _| {
                let file = fixture.path("model/model.safetensors");
                let mut bytes = std::fs::read(&file).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(file, bytes).unwrap();
            },
            "plan.model",
        ),
    ];
    for (change, part) in table {
        let (report, log) = changed(change);
        assert_eq!(report.progress.resumed_from.unwrap().step, 6);
        assert_eq!(report.progress.exact_resume, Some(false), "{part}");
        assert!(log.contains("not bit for bit"), "{log}");
        assert!(log.contains(part), "`{part}` is missing in\n{log}");
    }
}

#[test]
fn another_number_of_threads_is_told() {
    let fixture = Fixture::new();
    fixture.train(FULL).completed();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.arg("launch").arg(fixture.path("run.yaml"));
    command.arg("--output_dir").arg(fixture.path("out"));
    command.env("OMP_NUM_THREADS", "2");
    let ended = Run::of(command, &fixture.path("")).end();
    let log = ended.log.clone();
    assert_eq!(ended.completed().progress.exact_resume, Some(false));
    assert!(log.contains("environment.threads: 1 -> 2"), "{log}");
}

#[test]
fn a_checkpoint_of_another_method_is_refused_and_stays() {
    let fixture = Fixture::new();
    fixture.train(&lora()).completed();
    let before = fixture.digests("out");
    let other_rank = lora().replace("rank: 4", "rank: 8");
    let shape = fixture.train(&other_rank);
    shape.failed(
        FailureClass::UserError,
        &["step-00000006", "shape [4, ", "model and method"],
    );
    let names = fixture.train(FULL);
    names.failed(
        FailureClass::UserError,
        &["only in the checkpoint", "lora_A", "another output folder"],
    );
    assert_eq!(fixture.digests("out"), before);
    fixture.train(&lora()).completed();
}

#[test]
fn a_torn_checkpoint_is_passed_over_for_the_one_before_it() {
    let fixture = Fixture::new();
    fixture.train(FULL).completed();
    let expected = fixture.digests("out");
    let file = fixture.path("out/checkpoints/step-00000006/optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let ended = fixture.train(FULL);
    assert!(ended.log.contains("is torn and skipped"), "{}", ended.log);
    let report = ended.completed();
    assert_eq!(report.progress.resumed_from.unwrap().step, 3);
    assert_eq!(fixture.digests("out"), expected);
}
