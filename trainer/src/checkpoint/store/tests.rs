use tch::{Device, Kind, Tensor};

use super::*;
use crate::checkpoint::{TensorFile, write_tensors};

const WEIGHTS_FILE: &str = "weights.safetensors";

const KEEP_TWO: Retention = Retention {
    keep_last: 2,
    keep_best: false,
    keep_every: None,
};

fn manifest(step: u64) -> Manifest {
    Manifest {
        step,
        ..Manifest::default()
    }
}

fn publish(store: &Store, step: u64) -> Checkpoint {
    let weights = Tensor::full([100], step as f64, (Kind::Float, Device::Cpu));
    let folder = store.begin(step).unwrap();
    let file = folder.join(WEIGHTS_FILE);
    write_tensors(&file, [("w", &weights)]).unwrap();
    let files = vec![file_entry(&file).unwrap()];
    store.publish(manifest(step), files).unwrap().checkpoint
}

/// The newest complete checkpoint and the warnings on the way.
fn newest(run: &Path) -> (Option<Checkpoint>, Vec<String>) {
    let mut warnings = Vec::new();
    let found = newest_complete(run, &mut |warning| warnings.push(warning)).unwrap();
    (found, warnings)
}

fn names(run: &Path) -> Vec<String> {
    let folders = subfolders(&run.join(CHECKPOINTS_FOLDER)).unwrap();
    folders.iter().map(|folder| file_name(folder)).collect()
}

#[test]
fn what_was_published_is_found_verified_and_read_back() {
    let run = tempfile::tempdir().unwrap();
    assert_eq!(newest(run.path()), (None, vec![]));
    let store = Store::open(run.path(), 3, KEEP_TWO).unwrap();
    let published = publish(&store, 7);
    let (found, warnings) = newest(run.path());
    assert_eq!((found.as_ref(), warnings.len()), (Some(&published), 0));
    assert_eq!(
        (published.manifest.attempt, published.manifest.step),
        (3, 7)
    );
    assert!(
        published.manifest.time.ends_with('Z'),
        "{}",
        published.manifest.time
    );
    let file = TensorFile::open(&published.folder.join(WEIGHTS_FILE)).unwrap();
    assert_eq!(file.tensor("w").unwrap().double_value(&[99]), 7.0);
}

#[test]
fn torn_checkpoints_are_skipped_with_a_warning() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(
        run.path(),
        1,
        Retention {
            keep_last: 9,
            ..KEEP_TWO
        },
    )
    .unwrap();
    let good = publish(&store, 10);
    let (flipped, cut, no_manifest, half) = (
        publish(&store, 20),
        publish(&store, 30),
        publish(&store, 40),
        publish(&store, 50),
    );
    let file = flipped.folder.join(WEIGHTS_FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::write(cut.folder.join(WEIGHTS_FILE), b"").unwrap();
    std::fs::remove_file(no_manifest.folder.join(MANIFEST_FILE)).unwrap();
    std::fs::write(half.folder.join(MANIFEST_FILE), b"{\"format\": 1,").unwrap();
    let (found, warnings) = newest(run.path());
    assert_eq!(found, Some(good));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings
            .iter()
            .all(|w| w.contains("torn") && w.contains(WEIGHTS_FILE))
    );
}

#[test]
fn a_crash_before_the_rename_leaves_nothing_that_counts() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 1, KEEP_TWO).unwrap();
    let good = publish(&store, 10);
    let temporary = run
        .path()
        .join(CHECKPOINTS_FOLDER)
        .join(".tmp-step-00000020");
    std::fs::create_dir(&temporary).unwrap();
    std::fs::copy(
        good.folder.join(MANIFEST_FILE),
        temporary.join(MANIFEST_FILE),
    )
    .unwrap();
    assert_eq!(newest(run.path()).0, Some(good));
    Store::open(run.path(), 2, KEEP_TWO).unwrap();
    assert_eq!(names(run.path()), ["step-00000010"]);
}

#[test]
fn a_superseded_writer_publishes_nothing() {
    let run = tempfile::tempdir().unwrap();
    let old = Store::open(run.path(), 1, KEEP_TWO).unwrap();
    let good = publish(&old, 10);
    let new = Store::open(run.path(), 2, KEEP_TWO).unwrap();
    old.begin(20).unwrap();
    let error = old.publish(manifest(20), Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Drained(_)), "{error:?}");
    assert_eq!(newest(run.path()).0, Some(good.clone()));

    // Between its check and its rename the fence was taken: the name appears, but counts not.
    let late = run.path().join(CHECKPOINTS_FOLDER).join("step-00000020");
    std::fs::create_dir(&late).unwrap();
    let stale = serde_json::to_vec(&Manifest {
        attempt: 1,
        ..manifest(20)
    })
    .unwrap();
    std::fs::write(late.join(MANIFEST_FILE), stale).unwrap();
    assert_eq!(newest(run.path()).0, Some(good));
    let own = publish(&new, 20);
    assert_eq!(newest(run.path()).0, Some(own));
}

#[test]
fn retention_keeps_the_newest() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 1, KEEP_TWO).unwrap();
    for step in [10, 20, 30, 40] {
        publish(&store, step);
    }
    assert_eq!(names(run.path()), ["step-00000030", "step-00000040"]);
}
