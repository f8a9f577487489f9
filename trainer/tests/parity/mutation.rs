//! That the comparison can fail: disturbing any single tensor of a checkpoint makes it fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tch::Tensor;

use crate::compare::{Tolerance, compare};
use crate::forward::forward;
use crate::reference::{Reference, tensor_names};

/// The variant whose head is a tensor of its own, and a case that reaches every tensor.
const VARIANT: &str = "untied";
const CASE: &str = "two_images";
const WEIGHTS: &str = "model.safetensors";

/// Of the checkpoint with a head of its own; tensors that the reference leaves alone must have
/// no effect.
pub fn disturbing_any_tensor_is_noticed(family: &str) {
    let reference = Reference::of(family);
    let names = tensor_names(&reference.model(VARIANT).join(WEIGHTS));
    assert!(names.len() > 20, "{names:?}");
    let gradients = nonzero_gradients(&reference.tensors(VARIANT, CASE, "Float64"));
    let wrong = in_two(&names, |name| {
        let used = gradients.contains(&format!("grad.{name}"));
        is_noticed(&reference, Some(name)) != used
    });
    assert!(
        wrong.is_empty(),
        "{family}: disturbed without any effect, or with one that it should not have: {wrong:?}"
    );
    assert!(
        !is_noticed(&reference, None),
        "{family}: fails without any disturbance"
    );
}

/// Names of the gradients that are not zero throughout.
fn nonzero_gradients(file: &Path) -> BTreeSet<String> {
    let tensors = Tensor::read_safetensors(file).unwrap().into_iter();
    let nonzero = tensors.filter(|(_, tensor)| tensor.abs().max().double_value(&[]) > 0.0);
    nonzero.map(|(name, _)| name).collect()
}

/// The names for which `test` holds, found by two threads.
fn in_two(names: &[String], test: impl Fn(&str) -> bool + Sync) -> Vec<&String> {
    let (one, two) = names.split_at(names.len() / 2);
    let found = |part: &'_ [String]| part.iter().map(|name| test(name)).collect::<Vec<_>>();
    let results = std::thread::scope(|scope| {
        let other = scope.spawn(|| found(two));
        let first = found(one);
        [first, other.join().unwrap()].concat()
    });
    let named = names.iter().zip(results);
    named
        .filter_map(|(name, holds)| holds.then_some(name))
        .collect()
}

fn is_noticed(reference: &Reference, name: Option<&str>) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_disturbed(&reference.model(VARIANT), folder.path(), name);
    let ours = folder.path().join("ours.safetensors");
    forward(&model, &reference.data(CASE), "Float64", false, &ours);
    let theirs = reference.tensors(VARIANT, CASE, "Float64");
    let found = compare(&ours, &theirs, Tolerance(1e-9));
    found
        .failures
        .iter()
        .any(|failure| !failure.starts_with("grad."))
}

/// The checkpoint with every other value of one tensor a thousandth larger.
fn copy_disturbed(model: &Path, folder: &Path, name: Option<&str>) -> PathBuf {
    for entry in fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let bytes = fs::read(model.join(WEIGHTS)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let disturbed: BTreeMap<String, (Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(key, view)| {
            let disturbed = Some(key.as_str()) == name;
            let scales = [if disturbed { 1.001 } else { 1.0 }, 1.0];
            let values = view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .zip(scales.iter().cycle());
            let data = values.flat_map(|(v, scale)| (f32::from_le_bytes(*v) * scale).to_le_bytes());
            (key, (view.shape().to_vec(), data.collect()))
        })
        .collect();
    let views = disturbed.iter().map(|(key, (shape, data))| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap();
        (key.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, &folder.join(WEIGHTS)).unwrap();
    folder.to_path_buf()
}
