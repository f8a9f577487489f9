use super::*;
use crate::data::encoder::ImageFacts;

fn record(line: usize, tokens: usize, digest: u8) -> Inspected {
    Inspected {
        place: format!("a.jsonl:{line}"),
        outcome: Ok(Facts {
            tokens,
            image_tokens: 4,
            supervised: 2,
            images: vec![ImageFacts {
                width: tokens as u32,
                height: 10,
                reoriented: line == 2,
            }],
            fit: match tokens {
                0..=100 => Fit::Whole,
                _ => Fit::Dropped,
            },
            digest: [digest; 32],
        }),
    }
}

fn fault(line: usize, kind: FaultKind) -> Inspected {
    let place = format!("a.jsonl:{line}");
    Inspected {
        outcome: Err((kind, format!("{place}: wrong"))),
        place,
    }
}

fn sample() -> Report {
    let train = [
        record(1, 20, 1),
        record(2, 40, 2),
        record(3, 70, 1),
        record(4, 300, 3),
        fault(5, FaultKind::BrokenImage),
        fault(6, FaultKind::Record),
    ];
    Report::new(100, &train, Some(&[record(9, 50, 2), record(10, 50, 9)]))
}

#[test]
fn every_record_is_counted_once() {
    let Report { train, leaked, .. } = sample();
    assert_eq!((train.records, train.usable), (6, 3));
    assert_eq!(train.dropped.places, ["a.jsonl:4: 300 tokens"]);
    assert_eq!(
        train.duplicates.places,
        ["a.jsonl:3: the same as a.jsonl:1"]
    );
    assert_eq!(
        train.faults.keys().copied().collect::<Vec<_>>(),
        [FaultKind::Record, FaultKind::BrokenImage]
    );
    assert_eq!(leaked.places, ["a.jsonl:9"]);
    let images = train.images;
    assert_eq!((images.count, images.reoriented.count), (4, 1));
    assert_eq!(
        (images.smallest, images.largest),
        (Some([20, 10]), Some([300, 10]))
    );
    assert_eq!(sample().faults(), (2, Some("a.jsonl:6: wrong")));
}

#[test]
fn lengths_have_nearest_rank_percentiles_and_a_gapless_histogram() {
    let tokens = sample().train.tokens;
    assert_eq!(
        (tokens.total, tokens.of_images, tokens.supervised),
        (430, 16, 8)
    );
    assert_eq!(
        (tokens.shortest, tokens.median, tokens.longest),
        (20, 40, 300)
    );
    assert_eq!(tokens.mean, 107.5);
    let buckets: Vec<_> = tokens
        .histogram
        .iter()
        .map(|b| (b.from, b.to, b.records))
        .collect();
    assert_eq!(
        buckets,
        [
            (16, 31, 1),
            (32, 63, 1),
            (64, 127, 1),
            (128, 255, 0),
            (256, 511, 1)
        ]
    );
    let hundred = Tokens::new((1..=100).map(|n| (n, 0, 0)));
    assert_eq!(
        (hundred.median, hundred.percentile90, hundred.percentile99),
        (50, 90, 99)
    );
    assert_eq!(Tokens::new(std::iter::empty()), Tokens::default());
}

#[test]
fn lists_are_bounded_and_their_counts_are_not() {
    let many: Vec<_> = (0..LISTED + 7)
        .map(|line| fault(line, FaultKind::TooLong))
        .collect();
    let report = Report::new(100, &many, None);
    let listing = &report.train.faults[&FaultKind::TooLong];
    assert_eq!((listing.count, listing.places.len()), (LISTED + 7, LISTED));
    let text = report.to_string();
    assert!(text.contains(&format!("and {} more", LISTED + 2)), "{text}");
}

#[test]
fn the_table_shows_what_the_json_has() {
    let report = sample();
    let text = report.to_string();
    for part in [
        "training: 6 records, 3 to use",
        "  broken images: 1\n    a.jsonl:5: wrong\n",
        "left out, longer than 100 tokens: 1",
        "20x10 to 300x10 pixels",
        "tokens a record 20 to 300, mean 107.5, median 40",
        "16-31        1 ####",
        "validation: 2 records, 2 to use",
        "training records too: 1\n    a.jsonl:9\n",
    ] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["train"]["faults"]["brokenImage"]["count"], 1);
    assert_eq!(json["train"]["tokens"]["percentile90"], 300);
}
