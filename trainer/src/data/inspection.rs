//! What all records of a dataset come to: pure arithmetic over the facts of each.

mod table;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::encoder::{Facts, FaultKind, Fit};

/// How many places a list names; its count goes on.
const LISTED: usize = 1000;

/// One record: where it is, and its facts or what is wrong with it.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// `file:line`.
    pub place: String,
    pub outcome: Result<Facts, (FaultKind, String)>,
}

/// What `trainer validate` found. As text it is a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Most tokens of a record.
    pub max_length: usize,
    pub train: PartReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<PartReport>,
    /// Validation records that are training records too.
    pub leaked: Listing,
}

/// One part of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartReport {
    pub records: usize,
    /// Those that are trained on.
    pub usable: usize,
    /// Left out because they are longer than the limit.
    pub dropped: Listing,
    /// Cut at the limit.
    pub cut: Listing,
    /// The same words about the same pictures as an earlier record.
    pub duplicates: Listing,
    /// What would end a run.
    pub faults: BTreeMap<FaultKind, Listing>,
    pub tokens: Tokens,
    pub images: Images,
}

/// Places with what is to be said about each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    pub count: usize,
    /// The first of them.
    pub places: Vec<String>,
}

/// Of all records that can be read, also those that are dropped.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    pub total: usize,
    pub supervised: usize,
    pub of_images: usize,
    pub shortest: usize,
    pub mean: f64,
    pub median: usize,
    pub percentile90: usize,
    pub percentile99: usize,
    pub longest: usize,
    pub histogram: Vec<Bucket>,
}

/// Records of `from..=to` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    pub from: usize,
    pub to: usize,
    pub records: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    pub count: usize,
    /// Turned or mirrored as EXIF says.
    pub reoriented: Listing,
    /// Width and height, pixels, of those with the fewest and the most pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smallest: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<[u32; 2]>,
}

impl Report {
    pub fn new(max_length: usize, train: &[Inspected], validation: Option<&[Inspected]>) -> Self {
        Self {
            max_length,
            train: PartReport::new(train),
            validation: validation.map(PartReport::new),
            leaked: leaked(train, validation.unwrap_or_default()),
        }
    }

    /// How many records would end a run, and what is said about the first.
    pub fn faults(&self) -> (usize, Option<&str>) {
        let parts = || {
            [Some(&self.train), self.validation.as_ref()]
                .into_iter()
                .flatten()
        };
        let listings = || parts().flat_map(|part| part.faults.values());
        let first = listings().find_map(|listing| listing.places.first());
        let count = listings().map(|listing| listing.count).sum();
        (count, first.map(String::as_str))
    }
}

impl PartReport {
    fn new(records: &[Inspected]) -> Self {
        let mut part = Self {
            records: records.len(),
            ..Self::default()
        };
        let mut seen = HashMap::new();
        for Inspected { place, outcome } in records {
            match outcome {
                Ok(facts) => {
                    part.add(place, facts);
                    if let Some(first) = seen.get(&facts.digest) {
                        part.duplicates
                            .add(|| format!("{place}: the same as {first}"));
                    } else {
                        seen.insert(facts.digest, place);
                    }
                }
                // The message names the place itself.
                Err((kind, message)) => {
                    part.faults
                        .entry(*kind)
                        .or_default()
                        .add(|| message.clone());
                }
            }
        }
        let facts = records
            .iter()
            .filter_map(|record| record.outcome.as_ref().ok());
        part.tokens =
            Tokens::new(facts.map(|facts| (facts.tokens, facts.image_tokens, facts.supervised)));
        part
    }

    fn add(&mut self, place: &str, facts: &Facts) {
        let told = || format!("{place}: {} tokens", facts.tokens);
        match facts.fit {
            Fit::Dropped => self.dropped.add(told),
            Fit::Cut => self.cut.add(told),
            Fit::Whole => {}
        }
        self.usable += usize::from(facts.fit != Fit::Dropped);
        for image in &facts.images {
            self.images.count += 1;
            if image.reoriented {
                self.images.reoriented.add(|| place.to_owned());
            }
            let size = [image.width, image.height];
            let area = |[width, height]: [u32; 2]| u64::from(width) * u64::from(height);
            let images = &mut self.images;
            images.smallest = images
                .smallest
                .into_iter()
                .chain([size])
                .min_by_key(|&s| area(s));
            images.largest = images
                .largest
                .into_iter()
                .chain([size])
                .max_by_key(|&s| area(s));
        }
    }
}

impl Listing {
    fn add(&mut self, place: impl FnOnce() -> String) {
        self.count += 1;
        if self.places.len() < LISTED {
            self.places.push(place());
        }
    }
}

impl Tokens {
    /// From `(all, of images, supervised)` of each record.
    fn new(records: impl Iterator<Item = (usize, usize, usize)>) -> Self {
        let mut tokens = Self::default();
        let mut lengths = Vec::new();
        for (all, of_images, supervised) in records {
            lengths.push(all);
            tokens.total += all;
            tokens.of_images += of_images;
            tokens.supervised += supervised;
        }
        lengths.sort_unstable();
        let (Some(&shortest), Some(&longest)) = (lengths.first(), lengths.last()) else {
            return tokens;
        };
        // Nearest rank: the smallest length that this share of all do not exceed.
        let rank = |percent: usize| (lengths.len() * percent).div_ceil(100).max(1) - 1;
        let percentile = |percent| lengths.get(rank(percent)).copied().unwrap_or(longest);
        Self {
            shortest,
            mean: tokens.total as f64 / lengths.len() as f64,
            median: percentile(50),
            percentile90: percentile(90),
            percentile99: percentile(99),
            longest,
            histogram: histogram(&lengths),
            ..tokens
        }
    }
}

/// Buckets from one power of two to the next, from the shortest to the longest.
fn histogram(sorted: &[usize]) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    for &length in sorted {
        let from = 1 << length.max(1).ilog2();
        while buckets.last().is_none_or(|last| last.from < from) {
            let next = buckets.last().map_or(from, |last| last.from * 2);
            buckets.push(Bucket {
                from: next,
                to: next * 2 - 1,
                records: 0,
            });
        }
        if let Some(last) = buckets.last_mut() {
            last.records += 1;
        }
    }
    buckets
}

fn leaked(train: &[Inspected], validation: &[Inspected]) -> Listing {
    let digest = |record: &Inspected| record.outcome.as_ref().ok().map(|facts| facts.digest);
    let known: HashSet<_> = train.iter().filter_map(digest).collect();
    let mut listing = Listing::default();
    for record in validation {
        if digest(record).is_some_and(|digest| known.contains(&digest)) {
            listing.add(|| record.place.clone());
        }
    }
    listing
}

#[cfg(test)]
mod tests;
