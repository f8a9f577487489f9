//! That the comparison can fail: disturbing any single tensor of a checkpoint makes it fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::FAMILIES;
use crate::compare::{Tolerance, compare};
use crate::forward::forward;
use crate::reference::{Reference, tensor_names};

/// The variant whose head is a tensor of its own, and a case that reaches every tensor.
const VARIANT: &str = "untied";
const CASE: &str = "two_images";
const WEIGHTS: &str = "model.safetensors";

#[test]
fn disturbing_any_tensor_is_noticed() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let names = tensor_names(&reference.model(VARIANT).join(WEIGHTS));
        assert!(names.len() > 20, "{names:?}");
        let unnoticed: Vec<_> = names
            .iter()
            .filter(|name| !is_noticed(&reference, Some(name)))
            .collect();
        assert!(
            unnoticed.is_empty(),
            "{family}: disturbed without any effect: {unnoticed:?}"
        );
        assert!(
            !is_noticed(&reference, None),
            "{family}: fails without any disturbance"
        );
    }
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
