//! A tiny model and a dataset of digits with records of unequal length, some without a picture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with `model/`, `data/` and `run.yaml`.
pub struct Fixture {
    pub root: TempDir,
}

impl Fixture {
    /// `spec` goes under `spec:` of the document, beside model and dataset.
    pub fn new(spec: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        fs::create_dir(&data).unwrap();
        write_data(&data);
        let mut init = Command::new(env!("CARGO_BIN_EXE_trainer"));
        init.arg("init").arg("--data").arg(&data);
        let done = init.arg("--out").arg(root.path().join("model")).output();
        let done = done.unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let fixture = Self { root };
        fixture.write(spec);
        fixture
    }

    /// Replaces the document.
    pub fn write(&self, spec: &str) {
        let root = self.path("").display().to_string();
        let text = format!(
            "apiVersion: vlft.dev/v1alpha1\nkind: VLFineTune\nmetadata: {{ name: several }}\n\
             spec:\n  model: {{ uri: 'file://{root}model' }}\n  dataset: {{ train: [{{ uri: \
             'file://{root}data' }}], validation: [{{ uri: 'file://{root}data' }}] }}\n{spec}"
        );
        fs::write(self.document(), text).unwrap();
    }

    pub fn document(&self) -> PathBuf {
        self.path("run.yaml")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

/// 22 records: digits, every third without its picture, answers of one to three sentences.
fn write_data(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits/train");
    let text = fs::read_to_string(source.join("metadata.jsonl")).unwrap();
    let mut lines = String::new();
    for (number, line) in text.lines().take(22).enumerate() {
        let record: Value = serde_json::from_str(line).unwrap();
        let image = record["image"].as_str().unwrap();
        let name = image.replace('/', "-");
        fs::copy(source.join(image), folder.join(&name)).unwrap();
        let answer = [record["text"].as_str().unwrap()]
            .repeat(1 + number % 3)
            .join(". ");
        let mut question = vec![json!({ "type": "text", "text": "What is it?" })];
        if number % 3 != 1 {
            question.insert(0, json!({ "type": "image", "image": name }));
        }
        let record = json!({ "messages": [
            { "role": "user", "content": question },
            { "role": "assistant", "content": [{ "type": "text", "text": answer }] },
        ] });
        lines += &format!("{record}\n");
    }
    fs::write(folder.join("metadata.jsonl"), lines).unwrap();
}
