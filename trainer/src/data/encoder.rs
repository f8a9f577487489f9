//! A record to what the model sees: ids, shifted labels, positions, patches.

mod inspect;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use tch::Tensor;
use vlft_crds::dataset::Truncation;

use super::chat::{Chat, ChatTokens};
use super::collate::collate;
use super::image_file;
use super::record::{Message, Record, Role};
use super::source::Located;
use crate::batch::{Batch, Cursor, IGNORE_INDEX};
use crate::error::{Error, Result};
use crate::processor::{Expansion, ImagePlan, Processor};

pub use inspect::{Facts, Fault, FaultKind, Fit, ImageFacts};

/// Turns records into samples. Shared by worker threads.
pub struct Encoder {
    chat: Chat,
    processor: Arc<dyn Processor>,
    limit: LengthLimit,
}

/// Most tokens of a sample, and what happens to longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthLimit {
    pub max_length: usize,
    pub truncation: Truncation,
}

/// One sample, ready to be put into a batch. All vectors but `images` have its token count.
#[derive(Debug)]
pub struct Sample {
    pub ids: Vec<u32>,
    /// Shifted by one: what each position predicts, or [`IGNORE_INDEX`].
    pub labels: Vec<i64>,
    /// One vector for each axis.
    pub positions: Vec<Vec<i64>>,
    pub images: Vec<EncodedImage>,
    pub image_token_id: u32,
}

/// One image of a sample.
#[derive(Debug)]
pub struct EncodedImage {
    pub grid_thw: [i64; 3],
    /// Height and width as given, pixels.
    pub original_hw: [i64; 2],
    /// `[P, D]` float32.
    pub pixel_values_pd: Tensor,
}

/// What became of a record.
#[derive(Debug)]
pub enum Encoded {
    Sample(Sample),
    /// Left out: it has this many tokens, more than the limit.
    TooLong {
        tokens: usize,
    },
}

impl Encoded {
    /// Memory that its patches take, bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Sample(sample) => {
                let patches = sample
                    .images
                    .iter()
                    .map(|image| image.pixel_values_pd.numel());
                patches.sum::<usize>() * size_of::<f32>()
            }
            Self::TooLong { .. } => 0,
        }
    }
}

/// A record without its last answer, and that answer.
#[derive(Debug)]
pub struct Prompt {
    /// One segment that ends where the assistant begins; nothing is supervised.
    pub batch: Batch,
    pub answer: String,
}

impl Encoder {
    /// Reads the tokenizer and chat template of a checkpoint folder.
    pub fn open(folder: &Path, processor: Arc<dyn Processor>, limit: LengthLimit) -> Result<Self> {
        let chat = Chat::open(folder, processor.as_ref())?;
        Ok(Self {
            chat,
            processor,
            limit,
        })
    }

    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// Encodes a record with its images. Errors name its file and line.
    pub fn sample(&self, record: &Located<Record>) -> Result<Encoded> {
        let images = decode_images(record)?;
        self.sample_of(record, &images)
            .map_err(|error| record.at(error))
    }

    /// A record's tokens and image plans by the headers of its images alone: what
    /// [`Self::sample`] makes, without decoding. Errors name its file and line.
    pub fn outline(&self, record: &Located<Record>) -> Result<(ChatTokens, Vec<ImagePlan>)> {
        let plan = |file: &PathBuf| {
            let bytes = image_file::read(file)?;
            image_file::header(&bytes).map_err(|fault| format!("image {} {fault}", file.display()))
        };
        let headers = record
            .images
            .iter()
            .map(plan)
            .collect::<Result<Vec<_>, String>>();
        let headers = headers.map_err(|fault| record.fault(fault))?;
        let plans = headers
            .iter()
            .map(|header| self.processor.plan_image(header.width, header.height))
            .collect::<Result<Vec<_>>>();
        let plans = plans.map_err(|error| record.at(error))?;
        let tokens = self
            .tokens(&record.value, &plans)
            .map_err(|error| record.at(error))?;
        Ok((tokens, plans))
    }

    /// Encodes everything before the last answer. Errors name the record's file and line.
    pub fn prompt(&self, record: &Located<Record>) -> Result<Prompt> {
        let images = decode_images(record)?;
        self.prompt_of(record, &images)
            .map_err(|error| record.at(error))
    }

    /// Encodes a conversation that the assistant is to continue: one segment, nothing supervised.
    pub fn continue_from(&self, messages: &[Message], images: &[RgbImage]) -> Result<Batch> {
        let plans = self.plans(images)?;
        let ids = self.chat.prompt_ids(messages, &self.expansions(&plans))?;
        let supervised = vec![false; ids.len()];
        let tokens = ChatTokens { ids, supervised };
        self.check_image_tokens(&tokens, &plans)?;
        let sample = self.finish(tokens, images, &plans)?;
        collate(&[sample], Cursor::default())
    }

    fn sample_of(&self, record: &Located<Record>, images: &[RgbImage]) -> Result<Encoded> {
        let plans = self.plans(images)?;
        let tokens = self.tokens(&record.value, &plans)?;
        let length = tokens.ids.len();
        match self.limit.apply(tokens, self.processor.image_token().id)? {
            Some(tokens) => self.finish(tokens, images, &plans).map(Encoded::Sample),
            None => Ok(Encoded::TooLong { tokens: length }),
        }
    }

    fn prompt_of(&self, record: &Located<Record>, images: &[RgbImage]) -> Result<Prompt> {
        let messages = &record.value.messages;
        let last = messages
            .iter()
            .rposition(|message| message.role == Role::Assistant);
        let Some((last, answer)) = last.and_then(|last| Some((last, messages.get(last)?))) else {
            return Err(Error::Bug("a record without an assistant message".into()));
        };
        let before = messages.get(..last).unwrap_or_default();
        let shown = before.iter().map(Message::images).sum::<usize>();
        let images = images.get(..shown).unwrap_or(images);
        Ok(Prompt {
            batch: self.continue_from(before, images)?,
            answer: answer.words(),
        })
    }

    fn plans(&self, images: &[RgbImage]) -> Result<Vec<ImagePlan>> {
        let plan = |image: &RgbImage| self.processor.plan_image(image.width(), image.height());
        images.iter().map(plan).collect()
    }

    fn tokens(&self, record: &Record, plans: &[ImagePlan]) -> Result<ChatTokens> {
        let images = self.expansions(plans);
        let tokens = self.chat.tokens(&record.messages, &images)?;
        self.check_image_tokens(&tokens, plans)?;
        Ok(tokens)
    }

    fn expansions(&self, plans: &[ImagePlan]) -> Vec<Expansion> {
        let expansion = |plan| self.processor.expansion(plan);
        plans.iter().map(expansion).collect()
    }

    /// There must be as many image tokens as the projector will have rows.
    fn check_image_tokens(&self, tokens: &ChatTokens, plans: &[ImagePlan]) -> Result<()> {
        let image_token = self.processor.image_token().id;
        let found = tokens.ids.iter().filter(|id| **id == image_token).count();
        let rows: usize = plans.iter().map(|plan| plan.tokens).sum();
        if found == rows {
            return Ok(());
        }
        Err(Error::Bug(format!(
            "{found} image tokens for {rows} rows of vision features"
        )))
    }

    fn finish(
        &self,
        tokens: ChatTokens,
        images: &[RgbImage],
        plans: &[ImagePlan],
    ) -> Result<Sample> {
        let positions = self.processor.position_ids(&tokens.ids, plans)?;
        let encoded = images.iter().zip(plans).map(|(image, plan)| {
            Ok(EncodedImage {
                grid_thw: plan.grid_thw,
                original_hw: plan.original_hw,
                pixel_values_pd: self.processor.pixel_values(image, plan)?,
            })
        });
        Ok(Sample {
            labels: shifted_labels(&tokens),
            images: encoded.collect::<Result<_>>()?,
            ids: tokens.ids,
            positions,
            image_token_id: self.processor.image_token().id,
        })
    }
}

impl LengthLimit {
    /// The tokens if they fit, cut if they may be cut, `None` if the sample is to be left out.
    /// Image tokens are never cut, nor is the last supervised token.
    fn apply(&self, mut tokens: ChatTokens, image_token: u32) -> Result<Option<ChatTokens>> {
        let (length, limit) = (tokens.ids.len(), self.max_length);
        if length <= limit {
            return Ok(Some(tokens));
        }
        match self.truncation {
            Truncation::Drop => Ok(None),
            Truncation::Error => Err(Error::Data(format!(
                "the sample has {length} tokens, more than maxLength {limit}; shorten it, raise \
                 maxLength, lower maxPixels, or set truncation to Drop or Text"
            ))),
            Truncation::Text => {
                let cuts_image = tokens.ids.iter().skip(limit).any(|id| *id == image_token);
                tokens.ids.truncate(limit);
                tokens.supervised.truncate(limit);
                // The first token predicts nothing, so it does not count.
                let learns = tokens
                    .supervised
                    .iter()
                    .skip(1)
                    .any(|supervised| *supervised);
                Ok((learns && !cuts_image).then_some(tokens))
            }
        }
    }
}

/// What each position predicts: the next id where that is supervised. The one place that shifts.
fn shifted_labels(tokens: &ChatTokens) -> Vec<i64> {
    let next = tokens.ids.iter().zip(&tokens.supervised).skip(1);
    let labels = next.map(|(&id, &supervised)| match supervised {
        true => i64::from(id),
        false => IGNORE_INDEX,
    });
    labels
        .chain([IGNORE_INDEX])
        .take(tokens.ids.len())
        .collect()
}

fn decode_images(record: &Located<Record>) -> Result<Vec<RgbImage>> {
    let decode = |file: &PathBuf| {
        let bytes = image_file::read(file)?;
        image_file::decode(&bytes).map_err(|fault| format!("image {} {fault}", file.display()))
    };
    let decoded = record
        .images
        .iter()
        .map(decode)
        .collect::<Result<Vec<_>, String>>();
    decoded.map_err(|fault| record.fault(fault))
}
