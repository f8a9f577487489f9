//! The report for people.

use std::fmt::{self, Display, Formatter};

use super::{Listing, PartReport, Report};
use crate::data::encoder::FaultKind;

/// How many places of a list are shown; the JSON has more.
const SHOWN: usize = 5;
/// Longest bar of the histogram.
const CELLS: usize = 40;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        part(f, "training", &self.train, self.max_length)?;
        if let Some(validation) = &self.validation {
            part(f, "validation", validation, self.max_length)?;
        }
        list(
            f,
            "validation records that are training records too",
            &self.leaked,
        )
    }
}

fn part(f: &mut Formatter, name: &str, part: &PartReport, limit: usize) -> fmt::Result {
    let PartReport {
        records,
        usable,
        dropped,
        cut,
        duplicates,
        faults,
        tokens,
        images,
    } = part;
    writeln!(f, "{name}: {records} records, {usable} to use")?;
    for (kind, listing) in faults {
        list(f, kind.title(), listing)?;
    }
    list(f, &format!("left out, longer than {limit} tokens"), dropped)?;
    list(f, &format!("cut at {limit} tokens"), cut)?;
    list(f, "duplicates", duplicates)?;
    let size = |size: Option<[u32; 2]>| {
        size.map_or("none".to_owned(), |[width, height]| {
            format!("{width}x{height}")
        })
    };
    let sizes = format!("{} to {}", size(images.smallest), size(images.largest));
    writeln!(f, "  {:<16}{}, {sizes} pixels", "images", images.count)?;
    list(f, "images that EXIF rotates or mirrors", &images.reoriented)?;
    writeln!(
        f,
        "  {:<16}{}: {} of images, {} supervised",
        "tokens", tokens.total, tokens.of_images, tokens.supervised
    )?;
    writeln!(
        f,
        "  {:<16}{} to {}, mean {:.1}, median {}, 90 % {}, 99 % {}",
        "tokens a record",
        tokens.shortest,
        tokens.longest,
        tokens.mean,
        tokens.median,
        tokens.percentile90,
        tokens.percentile99
    )?;
    histogram(f, part)
}

fn histogram(f: &mut Formatter, part: &PartReport) -> fmt::Result {
    let buckets = &part.tokens.histogram;
    let most = buckets.iter().map(|bucket| bucket.records).max();
    for bucket in buckets {
        let range = format!("{}-{}", bucket.from, bucket.to);
        let cells = (bucket.records * CELLS).div_ceil(most.unwrap_or(1).max(1));
        let row = format!("  {range:>15} {:>8} {}", bucket.records, "#".repeat(cells));
        writeln!(f, "{}", row.trim_end())?;
    }
    Ok(())
}

/// Nothing where there is none.
fn list(f: &mut Formatter, title: &str, listing: &Listing) -> fmt::Result {
    if listing.count == 0 {
        return Ok(());
    }
    writeln!(f, "  {title}: {}", listing.count)?;
    for place in listing.places.iter().take(SHOWN) {
        writeln!(f, "    {place}")?;
    }
    match listing.count.saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "    and {more} more"),
    }
}

impl FaultKind {
    fn title(self) -> &'static str {
        match self {
            Self::Record => "lines that are no records, or whose image is not there",
            Self::BrokenImage => "broken images",
            Self::OversizeImage => "oversize images",
            Self::Placeholders => "images and text that do not fit each other",
            Self::TooLong => "too long",
        }
    }
}
