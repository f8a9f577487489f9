//! `trainer validate` on data with one of everything.

use std::fs;
use std::process::Output;

use image::{ImageEncoder, RgbImage};
use serde_json::Value;
use vlft_crds::contract::exit_code;

use crate::bad_data::{IMAGE, bitmap};
use crate::fixture::{FULL, Fixture, RECORDS};

fn validate(fixture: &Fixture, limit: &str) -> (Output, Value) {
    fixture.document(FULL);
    fixture.replace("run.yaml", "validation:", &format!("{limit}, validation:"));
    let output = fixture.trainer(&["validate", "run.yaml", "--json", "report.json"]);
    let json = fs::read(fixture.path("report.json")).unwrap_or_else(|_| b"null".to_vec());
    (output, serde_json::from_slice(&json).unwrap())
}

/// A JPEG of 40x20 pixels with the EXIF orientation `turn`.
fn photo(turn: u8) -> Vec<u8> {
    let mut plain = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new(&mut plain);
    let image = RgbImage::from_fn(40, 20, |x, y| image::Rgb([x as u8 * 6, y as u8 * 12, 90]));
    encoder
        .write_image(image.as_raw(), 40, 20, image::ExtendedColorType::Rgb8)
        .unwrap();
    // APP1: one entry, orientation (0x0112), a short, big-endian.
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([turn, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&plain[..2], &[0xff, 0xe1], &length, &exif, &plain[2..]].concat()
}

#[test]
fn sound_data_passes_and_nothing_is_written() {
    let fixture = Fixture::new();
    let (output, report) = validate(&fixture, "maxLength: 128");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(exit_code::COMPLETED), "{text}");
    let train = &report["train"];
    assert_eq!(
        (&train["records"], &train["usable"]),
        (&23.into(), &23.into())
    );
    assert_eq!(train["images"]["count"], 23);
    assert_eq!(report["validation"]["records"], 4);
    let counted: u64 = train["tokens"]["histogram"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| bucket["records"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, RECORDS as u64);
    assert!(text.contains("training: 23 records, 23 to use"), "{text}");
    assert!(!fixture.path("out").exists());
}

/// Training data with one mistake a line, and validation data of which one record is training data.
fn one_of_everything() -> Fixture {
    let fixture = Fixture::new();
    let line =
        |image: &str, text: &str| serde_json::json!({ "image": image, "text": text }).to_string();
    let digit = "images/0001.png";
    fixture.write("data/images/turned.jpg", photo(6));
    fixture.write("data/images/huge.bmp", bitmap(30_000, 30_000));
    fixture.write(
        "data/images/half.png",
        &fs::read(fixture.path(IMAGE)).unwrap()[..60],
    );
    fixture.replace_line(2, line(digit, "a handwritten digit zero").as_bytes());
    fixture.replace_line(3, b"not json");
    fixture.replace_line(4, line("images/half.png", "a").as_bytes());
    fixture.replace_line(5, line("images/huge.bmp", "a").as_bytes());
    fixture.replace_line(6, line(digit, "<|image_pad|>").as_bytes());
    fixture.replace_line(7, line("../model/config.json", "a").as_bytes());
    fixture.replace_line(8, line(digit, &"long ".repeat(300)).as_bytes());
    fixture.replace_line(9, line("images/turned.jpg", "a").as_bytes());
    fs::copy(
        fixture.path("data/images/0001.png"),
        fixture.path("validation/images/0001.png"),
    )
    .unwrap();
    fixture.replace("validation/metadata.jsonl", "\n", "\n\n");
    let first = line(digit, "a handwritten digit zero");
    let text = fs::read_to_string(fixture.path("validation/metadata.jsonl")).unwrap();
    fixture.write("validation/metadata.jsonl", format!("{first}\n{text}"));
    fixture
}

#[test]
fn one_of_everything_is_found_and_named() {
    let fixture = one_of_everything();
    let (output, report) = validate(&fixture, "maxLength: 128");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{table}{error}");
    assert_eq!(output.status.code(), Some(exit_code::DATA_ERROR), "{table}");
    assert!(
        error.contains("5 records would end the run") && error.contains("metadata.jsonl:3: "),
        "{error}"
    );
    let train = &report["train"];
    for (path, count, place) in [
        ("/faults/record", 2, "metadata.jsonl:3: not JSON"),
        ("/faults/brokenImage", 1, "metadata.jsonl:4: image"),
        ("/faults/oversizeImage", 1, "metadata.jsonl:5: image"),
        (
            "/faults/placeholders",
            1,
            "metadata.jsonl:6: the text holds",
        ),
        ("/dropped", 1, "metadata.jsonl:8: "),
        ("/duplicates", 1, "metadata.jsonl:2: the same as"),
        ("/images/reoriented", 1, "metadata.jsonl:9"),
    ] {
        let listing = train.pointer(path).unwrap();
        assert_eq!(listing["count"], count, "{path}: {report:#}");
        let found = listing["places"][0].as_str().unwrap();
        assert!(found.contains(place), "{path}: {found}");
        assert!(table.contains(found), "{found} is missing in\n{table}");
    }
    assert!(report["leaked"]["count"].as_u64() >= Some(1), "{report:#}");
    // Turned by a quarter: as shown it is 20 wide.
    assert_eq!(
        (&train["records"], &train["usable"]),
        (&23.into(), &17.into())
    );
    assert_eq!(train["images"]["smallest"], serde_json::json!([20, 40]));
}

#[test]
fn data_of_which_nothing_fits_and_samples_too_long_to_be_allowed_are_errors() {
    let fixture = Fixture::new();
    let (output, report) = validate(&fixture, "maxLength: 16");
    assert_eq!(output.status.code(), Some(exit_code::DATA_ERROR));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains("all 23 records are longer than maxLength 16"),
        "{error}"
    );
    assert_eq!(report["train"]["dropped"]["count"], 23);
    let (output, report) = validate(&fixture, "maxLength: 16, truncation: Error");
    assert_eq!(output.status.code(), Some(exit_code::DATA_ERROR));
    assert_eq!(report["train"]["faults"]["tooLong"]["count"], 23);
}

#[test]
fn a_document_that_makes_no_sense_is_the_users_error() {
    let fixture = Fixture::new();
    let (output, _) = validate(&fixture, "maxLengths: 16");
    assert_eq!(output.status.code(), Some(exit_code::USER_ERROR));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("spec.dataset.maxLengths"), "{error}");
}
