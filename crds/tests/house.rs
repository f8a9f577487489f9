//! Holds the direction of dependencies between the crates:
//! `operator -> crds <- trainer -> torch-ext`, `tests -> crds`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What each crate may use of the workspace.
const ALLOWED: &[(&str, &[&str])] = &[
    ("vlft-crds", &[]),
    ("torch-ext", &[]),
    ("cluster", &[]),
    ("vlft-operator", &["vlft-crds"]),
    ("trainer", &["vlft-crds", "torch-ext"]),
    ("integration", &["vlft-crds"]),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

#[test]
fn workspace_dependencies_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeMap<&str, &Value> = packages
        .iter()
        .filter(|package| package["source"].is_null())
        .map(|package| (text(package, "name"), package))
        .collect();
    let known: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    for (name, package) in &members {
        assert!(known.contains(name), "{name} is not in this test's list");
        let allowed = ALLOWED.iter().find(|(known, _)| known == name).unwrap().1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency = text(dependency, "name");
            assert!(
                !members.contains_key(dependency) || allowed.contains(&dependency),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

/// Every package that `root` pulls in when built on its own. The metadata's graph unites the
/// features of the whole workspace and would show a client that the trainer does not have.
fn closure(root: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree", "--locked", "-p", root, "-e", "normal", "--prefix", "none",
        ])
        .args(["--format", "{p}"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_trainer_has_no_kubernetes_client_and_the_operator_no_libtorch() {
    let trainer = closure("trainer");
    for client in ["kube-client", "kube-runtime", "hyper", "tokio"] {
        assert!(
            !trainer.iter().any(|name| name == client),
            "the trainer pulls in {client}"
        );
    }
    let operator = closure("vlft-operator");
    for torch in ["tch", "torch-sys", "torch-ext"] {
        assert!(
            !operator.iter().any(|name| name == torch),
            "the operator pulls in {torch}"
        );
    }
    assert!(operator.iter().any(|name| name == "kube-client"));
}

#[test]
fn generated_definition_is_up_to_date() {
    use kube::CustomResourceExt;
    let generated = serde_yaml::to_string(&vlft_crds::VLFineTune::crd()).unwrap();
    let committed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/vlfinetunes.yaml")).unwrap();
    assert!(
        generated == committed,
        "run `make generate` and commit crds/vlfinetunes.yaml"
    );
    assert!(
        committed.len() < 200_000,
        "the definition has {} bytes",
        committed.len()
    );
}

#[test]
fn every_example_loads_and_is_supported() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_yaml = path.extension().is_some_and(|ending| ending == "yaml");
        let text = if is_yaml {
            std::fs::read_to_string(&path).unwrap()
        } else {
            continue;
        };
        if !text.contains("kind: VLFineTune") {
            continue;
        }
        let finetune = vlft_crds::load::load_file(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let unsupported = vlft_crds::unsupported::unsupported_parts(&finetune.spec);
        assert!(
            unsupported.is_empty(),
            "{}: {unsupported:?}",
            path.display()
        );
        examples += 1;
    }
    assert!(examples > 0, "no example was found in {folder}");
}
