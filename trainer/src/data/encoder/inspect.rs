//! A record decoded and tokenised as for training, but told about instead of trained on.

use std::path::Path;

use image::RgbImage;
use serde::Serialize;
use sha2::{Digest, Sha256};
use vlft_crds::dataset::Truncation;

use super::{ChatTokens, Encoder};
use crate::data::image_file::{self, ImageFault, ImageHeader};
use crate::data::record::{Part, Record};
use crate::data::source::Located;
use crate::error::Error;

/// What a record that can be read is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Images expanded, before anything is cut.
    pub tokens: usize,
    pub image_tokens: usize,
    /// Tokens that the loss is computed on.
    pub supervised: usize,
    pub images: Vec<ImageFacts>,
    pub fit: Fit,
    /// sha256 of words, roles and the images' bytes.
    pub digest: [u8; 32],
}

/// What the length limit does to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Whole,
    Cut,
    Dropped,
}

/// An image as it is shown, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageFacts {
    pub width: u32,
    pub height: u32,
    /// Whether EXIF rotates or mirrors it.
    pub reoriented: bool,
}

/// Why a record would end a run.
#[derive(Debug)]
pub struct Fault {
    pub kind: FaultKind,
    /// Names file and line.
    pub error: Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultKind {
    /// The line is no record, or names an image that is not there or not inside.
    Record,
    BrokenImage,
    OversizeImage,
    /// Images and their places in the text do not agree, or the template refuses it.
    Placeholders,
    /// Longer than allowed, where that is an error.
    TooLong,
}

impl Encoder {
    /// Decodes and tokenises a record; no pixels are made of it.
    pub fn inspect(&self, record: &Located<Record>) -> Result<Facts, Fault> {
        let mut hasher = Sha256::new();
        hash_words(&record.value, &mut hasher);
        let mut images = Vec::with_capacity(record.images.len());
        let mut plans = Vec::with_capacity(record.images.len());
        for file in &record.images {
            let (facts, rgb, bytes) =
                look_at(file).map_err(|fault| in_image(record, file, &fault))?;
            hasher.update(Sha256::digest(&bytes));
            let plan = self.processor.plan_image(rgb.width(), rgb.height());
            plans.push(plan.map_err(|error| at(record, FaultKind::BrokenImage, error))?);
            images.push(facts);
        }
        let tokens = self.tokens(&record.value, &plans);
        let tokens = tokens.map_err(|error| at(record, FaultKind::Placeholders, error))?;
        let mut facts = self.count(&tokens, images, hasher.finalize().into());
        let image_token = self.processor.image_token().id;
        let kept = self.limit.apply(tokens, image_token);
        let kept = kept.map_err(|error| at(record, FaultKind::TooLong, error))?;
        facts.fit = match kept {
            None => Fit::Dropped,
            Some(kept) if kept.ids.len() < facts.tokens => Fit::Cut,
            Some(_) => Fit::Whole,
        };
        Ok(facts)
    }

    fn count(&self, tokens: &ChatTokens, images: Vec<ImageFacts>, digest: [u8; 32]) -> Facts {
        let image_token = self.processor.image_token().id;
        Facts {
            tokens: tokens.ids.len(),
            image_tokens: tokens.ids.iter().filter(|id| **id == image_token).count(),
            supervised: tokens.supervised.iter().filter(|counts| **counts).count(),
            images,
            fit: Fit::Whole,
            digest,
        }
    }

    /// Most tokens of a record, and what happens to longer ones.
    pub fn limit(&self) -> (usize, Truncation) {
        (self.limit.max_length, self.limit.truncation)
    }
}

fn look_at(file: &Path) -> Result<(ImageFacts, RgbImage, Vec<u8>), ImageFault> {
    let bytes = image_file::read(file).map_err(ImageFault::Broken)?;
    let ImageHeader {
        width,
        height,
        reoriented,
    } = image_file::header(&bytes)?;
    let rgb = image_file::decode(&bytes)?;
    let facts = ImageFacts {
        width,
        height,
        reoriented,
    };
    Ok((facts, rgb, bytes))
}

fn in_image(record: &Located<Record>, file: &Path, fault: &ImageFault) -> Fault {
    let kind = match fault {
        ImageFault::Broken(_) => FaultKind::BrokenImage,
        ImageFault::TooLarge(_) => FaultKind::OversizeImage,
    };
    let error = record.fault(format!("image {} {fault}", file.display()));
    Fault { kind, error }
}

fn at(record: &Located<Record>, kind: FaultKind, error: Error) -> Fault {
    let error = record.at(error);
    Fault { kind, error }
}

/// Lengths go in before the texts, so that no two conversations run together.
fn hash_words(record: &Record, hasher: &mut Sha256) {
    for message in &record.messages {
        hasher.update(message.role.as_str());
        hasher.update(message.parts.len().to_le_bytes());
        for part in &message.parts {
            let text = match part {
                Part::Text(text) => text.as_str(),
                Part::Image => "",
            };
            hasher.update([u8::from(*part == Part::Image)]);
            hasher.update(text.len().to_le_bytes());
            hasher.update(text);
        }
    }
}
