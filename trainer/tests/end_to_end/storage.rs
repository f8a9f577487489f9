//! Volumes that are full or read-only.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use vlft_crds::status::FailureClass;

use crate::fixture::{FULL, Fixture, lora};

/// A small file system of its own below a fixture's folder, gone with it.
struct Volume(PathBuf);

impl Volume {
    fn mount(fixture: &Fixture, name: &str, kib: u32) -> Self {
        let path = fixture.path(name);
        fs::create_dir(&path).unwrap();
        let volume = Self(path);
        volume.run(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &format!("size={kib}k"),
            "vlft",
        ]);
        volume
    }

    /// Changes it while it is in use.
    fn remount(&self, option: &str) {
        self.run(&["mount", "-o", &format!("remount,{option}")]);
    }

    fn run(&self, command: &[&str]) {
        let mut done = Command::new(command[0]);
        let done = done.args(&command[1..]).arg(&self.0).status().unwrap();
        assert!(done.success(), "{command:?}: this test runs as root");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes of a run's newest checkpoint and of its model, in KiB.
fn sizes(spec: &str) -> (u32, u32) {
    let fixture = Fixture::new();
    fixture.train(spec).completed();
    let kib = |folder: &str| {
        let files = fs::read_dir(fixture.path(folder)).unwrap();
        let bytes = files.map(|file| file.unwrap().metadata().unwrap().len());
        u32::try_from(bytes.map(|bytes| bytes.next_multiple_of(4096)).sum::<u64>() / 1024).unwrap()
    };
    (kib("out/checkpoints/step-00000006"), kib("out/model"))
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_names_folder_and_remedy() {
    let (checkpoint, _) = sizes(FULL);
    let fixture = Fixture::new();
    // The second one does not fit beside the first.
    let volume = Volume::mount(&fixture, "out", checkpoint * 3 / 2);
    let report = fixture.train(FULL).failed(
        FailureClass::Storage,
        &["out/checkpoints/", "step-00000006", "free space"],
    );
    assert_eq!(report.progress.last_checkpoint.unwrap().step, 3);
    assert_eq!(fixture.names("out/checkpoints"), ["step-00000003"]);
    // Again, on the disk that is still full: neither fence nor record is torn by it.
    let report = fixture
        .train(FULL)
        .failed(FailureClass::Storage, &["free space"]);
    assert_eq!(report.progress.resumed_from.unwrap().step, 3);
    volume.remount("size=100m");
    let report = fixture.train(FULL).completed();
    assert_eq!(report.progress.resumed_from.unwrap().step, 3);
    assert_eq!(report.progress.exact_resume, Some(true));
}

#[test]
fn a_disk_that_is_full_at_the_export_leaves_checkpoint_and_the_model_before_it() {
    let (checkpoint, model) = sizes(&lora());
    let fixture = Fixture::new();
    let size = 2 * checkpoint + model * 3 / 2;
    let volume = Volume::mount(&fixture, "out", size);
    let merged = format!("{}  output: {{ adapter: Merged }}\n", lora());
    fixture.train(&merged).completed();
    let before = fixture.digests("out/model");
    let longer = merged.replace("maxSteps: 6", "maxSteps: 7");
    let report = fixture
        .train(&longer)
        .failed(FailureClass::Storage, &["/out/", "free space"]);
    assert_eq!(report.progress.last_checkpoint.unwrap().step, 7);
    assert_eq!(fixture.digests("out/model"), before);
    volume.remount("size=100m");
    fixture.train(&longer).completed();
    assert_ne!(fixture.digests("out/model"), before);
    assert!(
        !fixture
            .names("out")
            .iter()
            .any(|name| name.starts_with(".tmp"))
    );
}

#[test]
fn a_disk_without_a_byte_left_tears_neither_fence_nor_checkpoint() {
    let fixture = Fixture::new();
    fixture.train(FULL).completed();
    let volume = Volume::mount(&fixture, "small", 64 << 10);
    crate::fixture::copy(&fixture.path("out"), &fixture.path("small"));
    let filler = fs::File::create(fixture.path("small/filler")).unwrap();
    let zeros = vec![0; 1 << 20];
    while std::io::Write::write_all(&mut &filler, &zeros).is_ok() {}
    drop(filler);
    let ended = fixture.start(FULL, "small").end();
    ended.failed(FailureClass::Storage, &["small", "free space"]);
    for file in ["fence.json", "run.json"] {
        let name = |folder| fs::read(fixture.path(&format!("{folder}/{file}"))).unwrap();
        assert_eq!(name("small"), name("out"), "{file}");
    }
    fs::remove_file(fixture.path("small/filler")).unwrap();
    let report = fixture.start(FULL, "small").end().completed();
    assert_eq!(report.progress.resumed_from.unwrap().step, 6);
    drop(volume);
}

#[test]
fn a_volume_that_cannot_be_written_is_named_with_the_remedy() {
    let fixture = Fixture::new();
    let volume = Volume::mount(&fixture, "out", 1024);
    volume.remount("ro");
    fixture.train(FULL).failed(
        FailureClass::Storage,
        &["/out", "mount that volume writable"],
    );
}
