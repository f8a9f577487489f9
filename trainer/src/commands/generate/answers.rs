//! Greedy answers of a model: prompts of equal length together, each group as a batch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use vlft_crds::dataset::Truncation;

use super::report::{Answer, Report};
use super::{DEFAULT_PROMPT, GenerateArgs};
use crate::batch::Batch;
use crate::data::formats::Wording;
use crate::data::{
    Dataset, DatasetOptions, Encoder, LengthLimit, Message, SourceOptions, image_file,
};
use crate::engine::{EngineOptions, GenerateOptions, UnitModel, generate, join_equal};
use crate::error::{Error, Result};
use crate::models::image_config::PixelLimits;
use crate::models::{
    self, Adapter, ConfigJson, Method, ModelOptions, Towers, open_processor, stop_ids,
};

/// A model that answers.
pub(super) struct Answers {
    model: UnitModel,
    encoder: Encoder,
    options: GenerateOptions,
    batch_size: usize,
}

/// A record's prompt, encoded.
struct Waiting {
    index: usize,
    batch: Batch,
    expected: String,
}

impl Answers {
    /// Loads a model, or a base model with an adapter, with its tokenizer and processor.
    pub(super) fn open(args: &GenerateArgs) -> Result<Self> {
        let (folder, model) = load(args, args.compute.engine_options()?)?;
        let processor = open_processor(&folder, PixelLimits::default())?;
        let limit = LengthLimit {
            max_length: usize::MAX,
            truncation: Truncation::Error,
        };
        Ok(Self {
            model,
            encoder: Encoder::open(&folder, processor, limit)?,
            options: GenerateOptions {
                max_new_tokens: args.max_new_tokens as usize,
                stop_ids: stop_ids(&folder, &ConfigJson::read(&folder)?)?,
            },
            batch_size: args.batch_size as usize,
        })
    }

    /// The answer to one conversation about these images.
    pub(super) fn of_prompt(&self, messages: &[Message], images: &[PathBuf]) -> Result<String> {
        let decode = |path: &PathBuf| {
            let bytes = image_file::read(path);
            let image = bytes
                .and_then(|bytes| image_file::decode(&bytes).map_err(|fault| fault.to_string()));
            image.map_err(|fault| Error::Data(format!("{}: {fault}", path.display())))
        };
        let images = images.iter().map(decode).collect::<Result<Vec<_>>>()?;
        let batch = self.encoder.continue_from(messages, &images)?;
        let ids = generate(&self.model, &batch, &self.options)?;
        self.encoder
            .chat()
            .decode(ids.first().map_or(&[], Vec::as_slice))
    }

    /// The answer to each record, in file order.
    pub(super) fn of_dataset(&self, args: &GenerateArgs, data: &Path) -> Result<Report> {
        let dataset = Dataset::open(&DatasetOptions {
            sources: vec![SourceOptions {
                path: data.to_owned(),
                image_root: args.image_root.clone(),
            }],
            format: None,
            wording: Wording {
                prompt: args
                    .prompt
                    .clone()
                    .unwrap_or_else(|| DEFAULT_PROMPT.to_owned()),
                system: None,
            },
        })?;
        let start = Instant::now();
        let mut waiting: BTreeMap<i64, Vec<Waiting>> = BTreeMap::new();
        let mut answers = Vec::new();
        for index in 0..dataset.len() {
            let prompt = self.encoder.prompt(&dataset.record(index)?)?;
            let length = prompt.batch.input_ids_t.size1()?;
            let group = waiting.entry(length).or_default();
            group.push(Waiting {
                index,
                batch: prompt.batch,
                expected: prompt.answer,
            });
            if group.len() == self.batch_size {
                answers.extend(self.answer(&std::mem::take(group))?);
            }
        }
        for group in waiting.values().filter(|group| !group.is_empty()) {
            answers.extend(self.answer(group)?);
        }
        answers.sort_by_key(|answer| answer.index);
        Ok(Report::new(answers, start.elapsed()))
    }

    fn answer(&self, group: &[Waiting]) -> Result<Vec<Answer>> {
        let batches: Vec<_> = group.iter().map(|waiting| &waiting.batch).collect();
        let generated = generate(&self.model, &join_equal(&batches)?, &self.options)?;
        let answer = |(waiting, ids): (&Waiting, Vec<u32>)| {
            let text = self.encoder.chat().decode(&ids)?;
            Ok(Answer::new(
                waiting.index,
                ids,
                text,
                waiting.expected.clone(),
            ))
        };
        group.iter().zip(generated).map(answer).collect()
    }
}

/// The folder of tokenizer and processor, and the model.
fn load(args: &GenerateArgs, engine: EngineOptions) -> Result<(PathBuf, UnitModel)> {
    if Adapter::is_in(&args.model) {
        let adapter = Adapter::open(&args.model)?;
        let base = args.base.clone().map_or_else(|| adapter.base(), Ok)?;
        let model = adapter.load(&base, engine)?;
        return Ok((base, model));
    }
    let options = ModelOptions {
        engine,
        method: Method::Frozen,
        towers: Towers::ALL,
    };
    Ok((args.model.clone(), models::load(&args.model, &options)?))
}
