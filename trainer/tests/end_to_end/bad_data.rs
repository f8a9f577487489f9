//! Data that cannot be trained on: file and line are named, and what was trained stays.

use std::fs;
use std::os::unix::fs::symlink;

use vlft_crds::status::FailureClass;

use crate::fixture::{FULL, Fixture, each};

type Change = fn(&Fixture);

pub const IMAGE: &str = "data/images/0003.png";
const LINE_3: &str = "metadata.jsonl:3: ";

/// Name of the case, what is broken, and what the message must hold.
const TABLE: &[(&str, Change, &[&str])] = &[
    (
        "no folder",
        |f| fs::rename(f.path("data"), f.path("elsewhere")).unwrap(),
        &["spec.dataset.train[0].uri", "/data", "does not exist"],
    ),
    (
        "no metadata",
        |f| fs::remove_file(f.path("data/metadata.jsonl")).unwrap(),
        &[
            "/data",
            "has no metadata.jsonl",
            "name the folder that has it",
        ],
    ),
    (
        "empty",
        |f| f.write("data/metadata.jsonl", ""),
        &["metadata.jsonl", "has no records"],
    ),
    (
        "blank",
        |f| f.write("data/metadata.jsonl", "\n\n  \n"),
        &["metadata.jsonl", "has no records"],
    ),
    (
        "metadata is a folder",
        |f| {
            fs::remove_file(f.path("data/metadata.jsonl")).unwrap();
            fs::create_dir(f.path("data/metadata.jsonl")).unwrap();
        },
        &["/data", "has no metadata.jsonl"],
    ),
    // Lines.
    (
        "no JSON",
        |f| f.replace_line(3, b"not json"),
        &[LINE_3, "not JSON", "one JSON object per line"],
    ),
    (
        "half a line",
        |f| f.replace_line(3, br#"{"image": "images/0003.png", "text": "#),
        &[LINE_3, "not JSON"],
    ),
    (
        "a number",
        |f| f.replace_line(3, b"17"),
        &[LINE_3, "a JSON object"],
    ),
    (
        "a list",
        |f| f.replace_line(3, br#"["images/0003.png", "a"]"#),
        &[LINE_3, "a JSON object"],
    ),
    (
        "the first line",
        |f| f.replace_line(1, b"[1, 2]"),
        &["metadata.jsonl:1: ", "a JSON object"],
    ),
    (
        "nested too deep",
        |f| f.replace_line(3, "[".repeat(100_000).as_bytes()),
        &[LINE_3],
    ),
    (
        "not UTF-8",
        |f| {
            f.replace_line(
                3,
                b"{\"image\": \"images/0003.png\", \"text\": \"\xff\xfe\"}",
            )
        },
        &[LINE_3, "not UTF-8", "save the file"],
    ),
    (
        "no text",
        |f| f.replace_line(3, br#"{"image": "images/0003.png"}"#),
        &[LINE_3, "`text`"],
    ),
    (
        "empty text",
        |f| f.replace_line(3, br#"{"image": "images/0003.png", "text": " "}"#),
        &[LINE_3, "nothing to learn"],
    ),
    (
        "unknown key",
        |f| {
            f.replace_line(
                3,
                br#"{"image": "images/0003.png", "text": "a", "label": 3}"#,
            )
        },
        &[LINE_3, "`label`"],
    ),
    (
        "text is a number",
        |f| f.replace_line(3, br#"{"image": "images/0003.png", "text": 3}"#),
        &[LINE_3, "string"],
    ),
    (
        "an image mark in the text",
        |f| {
            f.replace_line(
                3,
                br#"{"image": "images/0003.png", "text": "<|image_pad|>"}"#,
            )
        },
        &[LINE_3, "<|image_pad|>", "remove that special token"],
    ),
    // Images.
    (
        "missing image",
        |f| fs::remove_file(f.path(IMAGE)).unwrap(),
        &[
            LINE_3,
            "`images/0003.png` does not exist",
            "correct the path",
        ],
    ),
    (
        "empty image path",
        |f| f.replace_line(3, br#"{"image": "", "text": "a"}"#),
        &[LINE_3, "path is empty"],
    ),
    (
        "empty image",
        |f| f.write(IMAGE, ""),
        &[LINE_3, "0003.png", "no JPEG, PNG"],
    ),
    (
        "no image",
        |f| f.write(IMAGE, "no picture"),
        &[LINE_3, "0003.png", "no JPEG, PNG"],
    ),
    (
        "half an image",
        |f| {
            let bytes = fs::read(f.path(IMAGE)).unwrap();
            f.write(IMAGE, &bytes[..bytes.len() / 2]);
        },
        &[LINE_3, "0003.png", "is broken", "copy the file again"],
    ),
    (
        "a flipped bit",
        |f| {
            let mut bytes = fs::read(f.path(IMAGE)).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 0x10;
            f.write(IMAGE, bytes);
        },
        &[LINE_3, "0003.png", "is broken"],
    ),
    (
        "a folder",
        |f| f.replace_line(3, br#"{"image": "images", "text": "a"}"#),
        &[LINE_3, "images", "is no file"],
    ),
    (
        "a pipe",
        |f| {
            fs::remove_file(f.path(IMAGE)).unwrap();
            let made = std::process::Command::new("mkfifo")
                .arg(f.path(IMAGE))
                .status();
            assert!(made.unwrap().success());
        },
        &[LINE_3, "0003.png", "is no file"],
    ),
    (
        "900 million pixels",
        |f| f.write(IMAGE, bitmap(30_000, 30_000)),
        &[LINE_3, "30000x30000", "more than the limit of", "resize it"],
    ),
    (
        "4 x 10^18 pixels",
        |f| f.write(IMAGE, bitmap(i32::MAX, i32::MAX)),
        &[LINE_3, "0003.png"],
    ),
    (
        "a thread",
        |f| f.write(IMAGE, [bitmap(3, 3000), vec![0; 36_000]].concat()),
        &[LINE_3, "3x3000 pixels"],
    ),
    // Paths.
    (
        "..",
        |f| {
            f.write("secret.png", fs::read(f.path(IMAGE)).unwrap());
            f.replace_line(3, br#"{"image": "../secret.png", "text": "a"}"#);
        },
        &[LINE_3, "`../secret.png` leaves the dataset folder"],
    ),
    (
        "absolute",
        |f| {
            f.write("secret.png", fs::read(f.path(IMAGE)).unwrap());
            let line = format!(
                r#"{{"image": "{}", "text": "a"}}"#,
                f.path("secret.png").display()
            );
            f.replace_line(3, line.as_bytes());
        },
        &[LINE_3, "secret.png` leaves the dataset folder"],
    ),
    (
        "a link out",
        |f| {
            fs::rename(f.path(IMAGE), f.path("secret.png")).unwrap();
            symlink("../../secret.png", f.path(IMAGE)).unwrap();
        },
        &[
            LINE_3,
            "`images/0003.png` leaves the dataset folder",
            "secret.png",
        ],
    ),
    (
        "a linked folder out",
        |f| {
            fs::rename(f.path("data/images"), f.path("secrets")).unwrap();
            symlink("../secrets", f.path("data/images")).unwrap();
        },
        &["metadata.jsonl:", "leaves the dataset folder"],
    ),
    (
        "a link in a circle",
        |f| {
            fs::remove_file(f.path(IMAGE)).unwrap();
            symlink("0003.png", f.path(IMAGE)).unwrap();
        },
        &[LINE_3, "`images/0003.png` does not exist"],
    ),
    (
        "a zero byte in the path",
        |f| f.replace_line(3, br#"{"image": "images/\u0000.png", "text": "a"}"#),
        &[LINE_3, "does not exist"],
    ),
];

/// A header of a BMP file of this size, and no pixels.
pub fn bitmap(width: i32, height: i32) -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    bytes.extend([0u32, 0, 54, 40].map(u32::to_le_bytes).concat());
    bytes.extend([width, height].map(i32::to_le_bytes).concat());
    bytes.extend([1u16, 24].map(u16::to_le_bytes).concat());
    bytes.extend([0u32; 6].map(u32::to_le_bytes).concat());
    bytes
}

#[test]
fn each_is_named_by_file_and_line() {
    each(TABLE, |(name, change, parts)| {
        let fixture = Fixture::new();
        change(&fixture);
        println!("{name}");
        let ended = fixture.train(FULL);
        ended.failed(FailureClass::DataError, parts);
    });
}

#[test]
fn what_was_trained_before_the_data_broke_stays() {
    let fixture = Fixture::new();
    fixture.train(FULL).completed();
    let before = fixture.digests("out");
    let whole = fs::read(fixture.path(IMAGE)).unwrap();
    fixture.write(IMAGE, "broken");
    let longer = FULL.replace("maxSteps: 6", "maxSteps: 18");
    let report = fixture
        .train(&longer)
        .failed(FailureClass::DataError, &[LINE_3]);
    let kept = report.progress.last_checkpoint.unwrap();
    assert!(fixture.path("out").join(kept.path).is_dir());
    let model = |files: &std::collections::BTreeMap<String, String>| {
        files.get("model/model.safetensors").cloned()
    };
    assert_eq!(model(&fixture.digests("out")), model(&before));
    fixture.write(IMAGE, whole);
    let report = fixture.train(&longer).completed();
    assert_eq!(report.progress.resumed_from.unwrap().step, kept.step);
}

/// A sample that is too long is left out and counted, or named, as the document says.
#[test]
fn samples_that_are_too_long_are_dropped_or_named() {
    let fixture = Fixture::new();
    let long = "long ".repeat(500);
    let line = format!(r#"{{"image": "images/0003.png", "text": "{long}"}}"#);
    fixture.replace_line(3, line.as_bytes());
    let run = |truncation: &str| {
        fixture.document(FULL);
        let limit = format!("maxLength: 128, truncation: {truncation}, validation:");
        fixture.replace("run.yaml", "validation:", &limit);
        let document = fs::read_to_string(fixture.path("run.yaml")).unwrap();
        fixture.run_document(&document)
    };
    let parts = [LINE_3, "maxLength 128", "shorten it"];
    run("Error").failed(FailureClass::DataError, &parts);
    fs::remove_dir_all(fixture.path("out")).unwrap();
    run("Drop").completed();
}

#[test]
fn data_of_which_nothing_fits_is_refused_with_the_limit() {
    let fixture = Fixture::new();
    fixture.document(FULL);
    fixture.replace("run.yaml", "validation:", "maxLength: 16, validation:");
    let document = fs::read_to_string(fixture.path("run.yaml")).unwrap();
    fixture.run_document(&document).failed(
        FailureClass::DataError,
        &["all 23 records", "maxLength", "raise it"],
    );
}
