//! A tiny model, a slice of the digits and a document, in a folder of their own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Ended, Run};

/// Records to train on. A prime: no step of a run ends where an epoch does, but for every 23rd.
pub const RECORDS: usize = 23;

/// Full fine-tuning in a few steps; tests replace parts of it.
pub const FULL: &str = "  workers: { device: CPU }
  method: { full: {} }
  training: { maxSteps: 6, globalBatchSize: 4, microBatchSize: 2, learningRate: 1.0e-3, \
     warmupSteps: 1, logEverySteps: 1 }
  checkpoint: { everySteps: 3 }
";

/// The same with adapters and dropout in both of its places.
pub fn lora() -> String {
    FULL.replace(
        "method: { full: {} }",
        "method: { lora: { rank: 4, dropout: 0.2 } }",
    )
}

/// A folder with `model/`, `data/` and `run.yaml`; runs write to `out/`.
pub struct Fixture {
    root: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        copy(template(), root.path());
        Self { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Replaces a text that must be there.
    pub fn replace(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        self.write(name, text.replace(from, to));
    }

    /// Changes a file of JSON.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        let mut value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        self.write(name, value.to_string());
    }

    /// Replaces one line of the training data, counted from 1.
    pub fn replace_line(&self, number: usize, with: &[u8]) {
        let text = fs::read(self.path("data/metadata.jsonl")).unwrap();
        let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        lines[number - 1] = with;
        self.write("data/metadata.jsonl", lines.join(&b'\n'));
    }

    /// Writes the document; `spec` goes under `spec:`, beside model and dataset.
    pub fn document(&self, spec: &str) {
        let root = self.root.path().display();
        let text = format!(
            "apiVersion: vlft.dev/v1alpha1\nkind: VLFineTune\nmetadata: {{ name: digits }}\n\
             spec:\n  model: {{ uri: 'file://{root}/model' }}\n  dataset: {{ train: [{{ uri: \
             'file://{root}/data' }}], validation: [{{ uri: 'file://{root}/validation' }}] \
             }}\n{spec}"
        );
        self.write("run.yaml", text);
    }

    /// Starts a run into `out`.
    pub fn start(&self, spec: &str, out: &str) -> Run {
        self.document(spec);
        self.launch(out)
    }

    /// Runs a whole document to the end, however it ends.
    pub fn run_document(&self, text: &str) -> Ended {
        self.write("run.yaml", text);
        self.launch("out").end()
    }

    fn launch(&self, out: &str) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.arg("launch").arg(self.path("run.yaml"));
        command.arg("--output_dir").arg(self.path(out));
        Run::of(command, self.root.path())
    }

    /// Runs into `out/` to the end, however it ends.
    pub fn train(&self, spec: &str) -> Ended {
        self.start(spec, "out").end()
    }

    /// Any other command, in this folder.
    pub fn trainer(&self, arguments: &[&str]) -> std::process::Output {
        trainer(arguments, self.root.path())
    }

    /// sha256 of every file below a folder, by its path there. What tells of times and attempts
    /// is left out.
    pub fn digests(&self, folder: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        digest(&self.path(folder), "", &mut found);
        assert!(!found.is_empty(), "{folder} is empty");
        found
    }

    /// Names in a folder of the run's output.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn trainer(arguments: &[&str], folder: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .current_dir(folder)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap()
}

/// `model/`, `data/` and `validation/`, made once.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let root = tempfile::tempdir().unwrap();
        write_data(&root.path().join("data"), "train", RECORDS);
        write_data(&root.path().join("validation"), "validation", 4);
        let made = trainer(&["init", "--data", "data", "--out", "model"], root.path());
        let errors = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{errors}");
        root
    };
    TEMPLATE.get_or_init(make).path()
}

fn write_data(folder: &Path, part: &str, records: usize) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits");
    let source = source.join(part);
    fs::create_dir_all(folder.join("images")).unwrap();
    let text = fs::read_to_string(source.join("metadata.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().take(records).collect();
    for line in &lines {
        let record: Value = serde_json::from_str(line).unwrap();
        let image = record["image"].as_str().unwrap();
        fs::copy(source.join(image), folder.join(image)).unwrap();
    }
    fs::write(folder.join("metadata.jsonl"), lines.join("\n") + "\n").unwrap();
}

/// Copies a folder's content.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn digest(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    const OF_ITS_TIME: [&str; 3] = ["manifest.json", "fence.json", "run.json"];
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            digest(&entry.path(), &format!("{path}/"), found);
        } else if !OF_ITS_TIME.contains(&name.as_str()) {
            use sha2::Digest;
            let bytes = fs::read(entry.path()).unwrap();
            let sum = sha2::Sha256::digest(bytes);
            found.insert(path, format!("{sum:x}"));
        }
    }
}

/// Checks every row, and fails at the end if one did: a table is mended in one go.
pub fn each<T>(rows: impl IntoIterator<Item = T>, check: impl Fn(T)) {
    let outcomes = rows.into_iter().map(|row| {
        let checked = std::panic::AssertUnwindSafe(|| check(row));
        std::panic::catch_unwind(checked).is_err()
    });
    let outcomes: Vec<bool> = outcomes.collect();
    let failed = outcomes.iter().filter(|failed| **failed).count();
    assert_eq!(failed, 0, "of {} rows; each is told above", outcomes.len());
}
