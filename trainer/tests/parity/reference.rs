//! The reference's side: Python environments, and what they computed, once per state of the
//! scripts that compute it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::process;

/// Making an environment downloads some 600 MB on a fresh machine.
const SETUP: Duration = Duration::from_secs(30 * 60);
/// One Python process, on a machine that is busy with other tests.
const SCRIPT: Duration = Duration::from_secs(15 * 60);

/// Where checkpoints, inputs and results of a family lie: `inputs/CASE.jsonl`,
/// `VARIANT/model`, `VARIANT/CASE.PRECISION.safetensors`, `VARIANT/generated.json`.
#[derive(Debug, Clone)]
pub struct Reference {
    pub folder: PathBuf,
    pub variants: Vec<String>,
    pub cases: Vec<String>,
}

impl Reference {
    /// Computes what is not there yet; concurrent tests wait for each other, unless one has
    /// failed: then each reports what it finds.
    pub fn of(family: &str) -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = scripts_digest(family);
        let folder = cache_folder().join(format!("reference-{family}-{digest}"));
        if !folder.join("complete").exists() {
            compute(family, &folder);
        }
        Self {
            variants: keys(&description(family), "/variants"),
            cases: keys(&scripts().join("inputs.json"), ""),
            folder,
        }
    }

    pub fn model(&self, variant: &str) -> PathBuf {
        self.folder.join(variant).join("model")
    }

    pub fn data(&self, case: &str) -> PathBuf {
        self.folder.join(format!("inputs/{case}.jsonl"))
    }

    pub fn tensors(&self, variant: &str, case: &str, precision: &str) -> PathBuf {
        let file = format!("{case}.{precision}.safetensors");
        self.folder.join(variant).join(file)
    }
}

fn compute(family: &str, folder: &Path) {
    let partial = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).unwrap();
    let target = partial.to_str().unwrap();
    if has_series_4(family) {
        run_script("4", "make_checkpoints.py", &[family, target]);
    }
    run_script("5", "reference.py", &[family, target]);
    fs::write(partial.join("complete"), "").unwrap();
    fs::rename(&partial, folder).unwrap();
}

/// Runs a script of `tests/reference` and returns its standard output.
pub fn run_script(series: &str, script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(python(series));
    command.arg(scripts().join(script)).args(arguments);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HF_HUB_OFFLINE", "1");
    // One thread: results must not depend on how many cores the machine has.
    command.env("OMP_NUM_THREADS", "1");
    process::succeed(command, SCRIPT)
}

/// The interpreter of an environment; makes the environment if need be.
fn python(series: &str) -> String {
    let mut command = Command::new(root().join("scripts/venv.sh"));
    command.arg(series);
    process::succeed(command, SETUP).trim().to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

fn cache_folder() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set("VLFT_CACHE").unwrap_or_else(|| cache.unwrap().join("vlfinetune"))
}

/// Names of the families that are described.
pub fn described_families() -> Vec<String> {
    let entries = fs::read_dir(scripts().join("families")).unwrap();
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| name(entry.unwrap().path())).collect()
}

fn description(family: &str) -> PathBuf {
    scripts().join(format!("families/{family}.json"))
}

fn has_series_4(family: &str) -> bool {
    let value = read_json(&description(family));
    let variants = value["variants"].as_object().unwrap();
    variants.values().any(|variant| variant["series"] == 4)
}

/// Of every file that the results of a family depend on.
fn scripts_digest(family: &str) -> String {
    let mut files = BTreeMap::new();
    let entries = fs::read_dir(scripts()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    for path in paths
        .chain([description(family)])
        .filter(|path| path.is_file())
    {
        files.insert(path.clone(), fs::read(path).unwrap());
    }
    let mut digest = Sha256::new();
    for (path, bytes) in &files {
        digest.update(path.file_name().unwrap().as_encoded_bytes());
        digest.update(bytes);
    }
    digest.finalize()[..6]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Keys of a JSON object, in the file's order.
fn keys(file: &Path, pointer: &str) -> Vec<String> {
    let value = read_json(file);
    let object = value.pointer(pointer).and_then(|v| v.as_object()).unwrap();
    object.keys().cloned().collect()
}

fn read_json(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// Names in a safetensors file.
pub fn tensor_names(file: &Path) -> Vec<String> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors
        .names()
        .into_iter()
        .map(|name| name.to_string())
        .collect()
}
