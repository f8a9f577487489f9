//! A run from its first step to a model that answers.

use std::fs;
use std::path::Path;

use vlft_crds::contract::exit_code;

use crate::fixture::{FULL, Fixture, lora};

#[test]
fn a_run_learns_and_leaves_checkpoint_and_model() {
    let fixture = Fixture::new();
    let longer = FULL.replace("maxSteps: 6", "maxSteps: 40");
    let longer = longer.replace("1.0e-3", "2.0e-3");
    let spec = format!("{longer}  evaluation: {{ everySteps: 2 }}\n");
    let ended = fixture.train(&spec);
    let first = validation_losses(&ended.log)[0];
    let report = ended.completed();
    let last = report.validation_loss.unwrap();
    // The words are learnt at once, the digits of so few pictures hardly.
    assert!(last < 0.7 * first, "{first} -> {last}");
    assert_eq!(report.progress.step, 40);
    let checkpoint = report.progress.last_checkpoint.unwrap();
    assert_eq!(
        (checkpoint.step, checkpoint.path.as_str()),
        (40, "checkpoints/step-00000040")
    );
    // keepLast is 2.
    assert_eq!(
        fixture.names("out/checkpoints"),
        ["step-00000039", "step-00000040"]
    );
    assert_eq!(report.model_path.as_deref(), Some("model"));
    let image = "validation/images/0010.png";
    let answer = fixture.trainer(&["generate", "out/model", "--image", image]);
    let errors = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.status.code(), Some(exit_code::COMPLETED), "{errors}");
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.starts_with("a handwritten digit"), "{answer}");
}

/// In the order of the log.
fn validation_losses(log: &str) -> Vec<f64> {
    let after = log.split("validation loss ").skip(1);
    after
        .filter_map(|text| text.split('"').next()?.parse().ok())
        .collect()
}

#[test]
fn the_same_run_twice_ends_with_the_same_files() {
    for spec in [FULL.to_owned(), lora()] {
        let fixture = Fixture::new();
        for out in ["one", "two"] {
            fixture.start(&spec, out).end().completed();
        }
        assert_eq!(fixture.digests("one"), fixture.digests("two"));
        // Not because nothing was trained.
        let other = spec.replace("maxSteps: 6", "maxSteps: 5");
        fixture.start(&other, "other").end().completed();
        assert_ne!(fixture.digests("one/model"), fixture.digests("other/model"));
    }
}

#[test]
fn a_finished_run_that_runs_again_changes_nothing() {
    let fixture = Fixture::new();
    let first = fixture.train(FULL).completed();
    let before = fixture.digests("out");
    let second = fixture.train(FULL).completed();
    assert_eq!(second.progress.resumed_from.unwrap().step, 6);
    assert_eq!(second.progress.exact_resume, Some(true));
    assert_eq!(second.validation_loss, first.validation_loss);
    assert_eq!(fixture.digests("out"), before);
}

/// Looks at the checkpoints as fast as it can while they come and go.
#[test]
fn a_checkpoint_is_seen_whole_or_not_at_all() {
    let fixture = Fixture::new();
    let spec = FULL
        .replace("maxSteps: 6", "maxSteps: 25")
        .replace("everySteps: 3", "everySteps: 1");
    let mut run = fixture.start(&spec, "out");
    let folder = fixture.path("out/checkpoints");
    let mut seen = std::collections::BTreeSet::new();
    while !run.has_ended() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("step-") && is_whole(&entry.path()) {
                seen.insert(name);
            }
        }
    }
    run.end().completed();
    assert!(seen.len() > 5, "{seen:?}");
}

/// Panics where a checkpoint is there in part; false if it has just been removed.
fn is_whole(folder: &Path) -> bool {
    let length = |name: &str| fs::metadata(folder.join(name)).map(|metadata| metadata.len());
    let whole = fs::read(folder.join("manifest.json")).is_ok_and(|manifest| {
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let files = manifest["files"].as_array().unwrap();
        assert_eq!(files.len(), 2);
        files.iter().all(|file| {
            length(file["name"].as_str().unwrap()).is_ok_and(|bytes| file["bytes"] == bytes)
        })
    });
    assert!(whole || !folder.exists(), "{folder:?} is there in part");
    whole
}
