//! `trainer forward`: inputs, logits, loss and gradients, to compare with a reference.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tch::{Device, Tensor};
use vlft_crds::dataset::Truncation;

use crate::batch::{Batch, Cursor};
use crate::checkpoint::write_tensors;
use crate::data::formats::Wording;
use crate::data::{
    Dataset, DatasetOptions, Encoded, Encoder, LengthLimit, Sample, SourceOptions, collate,
};
use crate::engine::{EngineOptions, Precision, Recompute, UnitModel};
use crate::error::{Error, Result};
use crate::models::{self, Method, ModelOptions, Towers};

/// Writes inputs, logits, loss and gradients of a dataset to a safetensors file
#[derive(Debug, clap::Args)]
pub(super) struct ForwardArgs {
    /// Hugging Face checkpoint folder
    model: PathBuf,
    /// Folder with metadata.jsonl, or a jsonl file; all of it becomes one batch
    #[arg(long)]
    data: PathBuf,
    /// Safetensors file to write
    #[arg(long)]
    out: PathBuf,
    /// Also write the gradient of the mean loss for every parameter, as grad.NAME
    #[arg(long)]
    grads: bool,
    /// Kind to compute in
    #[arg(long, value_enum, default_value_t = Dtype::Float32)]
    dtype: Dtype,
    /// The user's words beside each image of an image-text record
    #[arg(long, default_value = "Describe this image.")]
    prompt: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Dtype {
    Float64,
    Float32,
    BFloat16,
    BFloat16Mixed,
}

impl Dtype {
    fn precision(self) -> Precision {
        match self {
            Self::Float64 => Precision::Float64,
            Self::Float32 => Precision::Float32,
            Self::BFloat16 => Precision::BFloat16,
            Self::BFloat16Mixed => Precision::BFloat16Mixed,
        }
    }
}

pub(super) fn run(args: ForwardArgs) -> Result<()> {
    let samples = read_samples(&args)?;
    let batch = collate(&samples, Cursor::default())?;
    let mut model = load(&args)?;
    let mut tensors = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        sample_tensors(&format!("sample.{index}"), sample, &mut tensors)?;
    }
    logit_tensors(&model, &batch, &mut tensors)?;
    loss_tensors(&mut model, &batch, args.grads, &mut tensors)?;
    write_tensors(
        &args.out,
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)),
    )
}

fn load(args: &ForwardArgs) -> Result<UnitModel> {
    let engine = EngineOptions {
        precision: args.dtype.precision(),
        device: Device::Cpu,
        recompute: Recompute::default(),
        loss_chunk: None,
        seed: 0,
    };
    let method = if args.grads {
        Method::Full
    } else {
        Method::Frozen
    };
    models::load(
        &args.model,
        &ModelOptions {
            engine,
            method,
            towers: Towers::ALL,
        },
    )
}

fn read_samples(args: &ForwardArgs) -> Result<Vec<Sample>> {
    let processor = models::registry::open_processor(&args.model, Default::default())?;
    let limit = LengthLimit {
        max_length: usize::MAX,
        truncation: Truncation::Error,
    };
    let encoder = Encoder::open(&args.model, processor, limit)?;
    let dataset = Dataset::open(&DatasetOptions {
        sources: vec![SourceOptions {
            path: args.data.clone(),
            image_root: None,
        }],
        format: None,
        wording: Wording {
            prompt: args.prompt.clone(),
            system: None,
        },
    })?;
    let samples = dataset
        .records()
        .map(|record| match encoder.sample(&record?)? {
            Encoded::Sample(sample) => Ok(sample),
            Encoded::TooLong { tokens } => Err(Error::Bug(format!("{tokens} tokens are too many"))),
        });
    let samples = samples.collect::<Result<Vec<_>>>()?;
    if samples.is_empty() {
        Err(no_records(&args.data))
    } else {
        Ok(samples)
    }
}

fn no_records(data: &Path) -> Error {
    Error::Data(format!("{}: holds no records", data.display()))
}

type Named = Vec<(String, Tensor)>;

fn sample_tensors(stem: &str, sample: &Sample, tensors: &mut Named) -> Result<()> {
    let ids: Vec<i64> = sample.ids.iter().map(|id| i64::from(*id)).collect();
    tensors.push((format!("{stem}.input_ids"), Tensor::f_from_slice(&ids)?));
    tensors.push((
        format!("{stem}.labels"),
        Tensor::f_from_slice(&sample.labels)?,
    ));
    if sample.images.is_empty() {
        return Ok(());
    }
    let grids: Vec<i64> = sample
        .images
        .iter()
        .flat_map(|image| image.grid_thw)
        .collect();
    let grids = Tensor::f_from_slice(&grids)?.f_view([-1, 3])?;
    let pixels: Vec<_> = sample
        .images
        .iter()
        .map(|image| &image.pixel_values_pd)
        .collect();
    tensors.push((format!("{stem}.image_grid_thw"), grids));
    tensors.push((format!("{stem}.pixel_values"), Tensor::f_cat(&pixels, 0)?));
    Ok(())
}

fn logit_tensors(model: &UnitModel, batch: &Batch, tensors: &mut Named) -> Result<()> {
    let logits_tv = model.logits(batch)?;
    let parts = logits_tv.f_split_with_sizes(batch.segments.as_slice(), 0)?;
    let named = parts.into_iter().enumerate();
    tensors.extend(named.map(|(index, part)| (format!("sample.{index}.logits"), part)));
    Ok(())
}

/// The mean loss over all supervised tokens, and its gradients.
fn loss_tensors(
    model: &mut UnitModel,
    batch: &Batch,
    grads: bool,
    tensors: &mut Named,
) -> Result<()> {
    if batch.supervised_tokens == 0 {
        return Err(Error::Data(
            "the data holds no supervised token; add an answer".into(),
        ));
    }
    #[allow(clippy::cast_precision_loss)]
    let count = batch.supervised_tokens as f64;
    let loss = if grads {
        model.forward_backward(batch, count, 0)?
    } else {
        model.loss(batch)?
    };
    tensors.push(("loss".to_owned(), Tensor::from(loss.loss_sum / count)));
    if grads {
        let named = model.parameters().named_grads()?;
        tensors.extend(
            named
                .into_iter()
                .map(|(name, grad)| (format!("grad.{name}"), grad)),
        );
    }
    Ok(())
}
