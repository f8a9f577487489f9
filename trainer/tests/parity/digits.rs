//! A few of the example's digits as a dataset, in a format that both sides read.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Words asked beside each digit.
pub const PROMPT: &str = "What is in this picture?";

/// Writes `metadata.jsonl` (messages format) for the first `count` records of a part of
/// examples/digits, pictures beside it. Returns the file.
pub fn write(part: &str, count: usize, folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/digits")
        .join(part);
    let text = fs::read_to_string(source.join("metadata.jsonl")).unwrap();
    let mut lines = String::new();
    for line in text.lines().take(count) {
        let record: Value = serde_json::from_str(line).unwrap();
        let image = record["image"].as_str().unwrap();
        let name = image.replace('/', "-");
        fs::copy(source.join(image), folder.join(&name)).unwrap();
        lines += &(chat(&name, record["text"].as_str().unwrap()).to_string() + "\n");
    }
    let file = folder.join("metadata.jsonl");
    fs::write(&file, lines).unwrap();
    file
}

fn chat(image: &str, answer: &str) -> Value {
    let text = |text: &str| json!({"type": "text", "text": text});
    json!({"messages": [
        {"role": "user", "content": [{"type": "image", "image": image}, text(PROMPT)]},
        {"role": "assistant", "content": [text(answer)]},
    ]})
}
