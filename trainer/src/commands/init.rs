//! `trainer init`: a randomly initialised model and a tokenizer trained on the data.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::data::formats::Wording;
use crate::data::template::{ChatTemplate, SpecialTokens};
use crate::data::{Dataset, DatasetOptions, SourceOptions, vocabulary};
use crate::error::{Error, Result};
use crate::models::qwen2_vl::preset::{Preset, TokenIds};
use crate::models::qwen2_vl::processor::CHAT_TEMPLATE;
use crate::models::random;

/// Most tokens of a trained vocabulary, special tokens left out.
const MAX_VOCABULARY: usize = 8192;

/// Qwen2-VL's special tokens, in the order of their published ids.
const SPECIAL: [&str; 14] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// Makes a randomly initialised model with a tokenizer trained on the dataset
///
/// The folder is a Hugging Face checkpoint of Qwen2-VL's architecture. The same data and seed
/// give the same bytes.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// Dataset folder (with metadata.jsonl) or jsonl file whose text the tokenizer learns
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Where the model goes; must not exist
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Size of the model
    #[arg(long, value_enum, default_value = "tiny")]
    preset: Preset,
    /// Decides the weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The user's words beside each image, as in spec.dataset.prompt
    #[arg(long, default_value = "Describe this image.")]
    prompt: String,
    /// Succeed without a change if the model is already there
    #[arg(long)]
    if_absent: bool,
}

pub(super) fn run(args: InitArgs) -> Result<()> {
    if args.out.exists() {
        if args.if_absent {
            println!("{} is already there", args.out.display());
            return Ok(());
        }
        return Err(Error::User(format!(
            "--out {} already exists; remove it or name another folder",
            args.out.display()
        )));
    }
    let tokenizer = train_tokenizer(&args.data, &args.prompt)?;
    let ids = token_ids(&tokenizer)?;
    // Written beside its place and renamed, so that a model that is there is a whole one.
    let partial = partial_folder(&args.out)?;
    write_model(&partial, &args, &tokenizer, &ids)?;
    fs::rename(&partial, &args.out).map_err(|error| storage(&args.out, &error))?;
    let tensors = args.preset.tensors(ids.vocabulary);
    let parameters: usize = tensors.iter().map(random::RandomTensor::len).sum();
    println!(
        "{}: Qwen2-VL with {parameters} random parameters and a vocabulary of {}",
        args.out.display(),
        ids.vocabulary
    );
    Ok(())
}

/// Trains on the dataset as the chat template writes it, without special tokens.
fn train_tokenizer(data: &Path, prompt: &str) -> Result<Tokenizer> {
    let dataset = Dataset::open(&DatasetOptions {
        sources: vec![SourceOptions {
            path: data.to_owned(),
            image_root: None,
        }],
        format: None,
        wording: Wording {
            prompt: prompt.to_owned(),
            system: None,
        },
    })?;
    let template = ChatTemplate::new(CHAT_TEMPLATE, SpecialTokens::default(), "<|image_pad|>")?;
    let mut texts = Vec::new();
    for record in dataset.records() {
        let text = template.render(&record?.value.messages, false)?;
        texts.extend(without_special(&text).map(str::to_owned));
    }
    vocabulary::train(texts.iter().map(String::as_str), &SPECIAL, MAX_VOCABULARY)
}

/// The stretches of text between special tokens.
fn without_special(text: &str) -> impl Iterator<Item = &str> {
    let pieces = text
        .split("<|")
        .enumerate()
        .map(|(index, piece)| match index {
            0 => piece,
            _ => piece.split_once("|>").map_or(piece, |(_, after)| after),
        });
    pieces.filter(|piece| !piece.is_empty())
}

fn token_ids(tokenizer: &Tokenizer) -> Result<TokenIds> {
    let id = |token: &str| {
        let id = tokenizer.token_to_id(token);
        id.ok_or_else(|| Error::Bug(format!("the new tokenizer lacks {token}")))
    };
    Ok(TokenIds {
        vocabulary: tokenizer.get_vocab_size(true),
        end_of_text: id("<|endoftext|>")?,
        end_of_turn: id("<|im_end|>")?,
        vision_start: id("<|vision_start|>")?,
        vision_end: id("<|vision_end|>")?,
        vision_pad: id("<|vision_pad|>")?,
        image_pad: id("<|image_pad|>")?,
        video_pad: id("<|video_pad|>")?,
    })
}

/// An empty folder beside `out`, what an interrupted call left there removed.
fn partial_folder(out: &Path) -> Result<PathBuf> {
    let Some(name) = out.file_name() else {
        return Err(Error::User(format!(
            "--out {}: name a new folder",
            out.display()
        )));
    };
    let partial = out.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(|error| storage(&partial, &error))?;
    }
    fs::create_dir_all(&partial).map_err(|error| storage(&partial, &error))?;
    Ok(partial)
}

fn write_model(
    folder: &Path,
    args: &InitArgs,
    tokenizer: &Tokenizer,
    ids: &TokenIds,
) -> Result<()> {
    let json = |name: &str, value: &Value| {
        let text = format!("{value:#}\n");
        let file = folder.join(name);
        fs::write(&file, text).map_err(|error| storage(&file, &error))
    };
    json("config.json", &args.preset.config(ids))?;
    json("generation_config.json", &generation_config(ids))?;
    json(
        "preprocessor_config.json",
        &args.preset.preprocessor_config(),
    )?;
    json("tokenizer_config.json", &tokenizer_config(tokenizer))?;
    let template = folder.join("chat_template.jinja");
    fs::write(&template, CHAT_TEMPLATE).map_err(|error| storage(&template, &error))?;
    let tokenizer_file = folder.join("tokenizer.json");
    tokenizer
        .save(&tokenizer_file, true)
        .map_err(|error| Error::Storage(format!("{}: {error}", tokenizer_file.display())))?;
    let tensors = args.preset.tensors(ids.vocabulary);
    random::write_safetensors(&folder.join("model.safetensors"), &tensors, args.seed)
}

fn generation_config(ids: &TokenIds) -> Value {
    json!({
        "bos_token_id": ids.end_of_text,
        "pad_token_id": ids.end_of_text,
        "eos_token_id": [ids.end_of_turn, ids.end_of_text],
        "do_sample": false,
    })
}

fn tokenizer_config(tokenizer: &Tokenizer) -> Value {
    let added = SPECIAL.iter().filter_map(|token| {
        let entry = json!({
            "content": token, "lstrip": false, "normalized": false, "rstrip": false,
            "single_word": false, "special": true,
        });
        Some((tokenizer.token_to_id(token)?.to_string(), entry))
    });
    json!({
        "tokenizer_class": "Qwen2Tokenizer",
        "processor_class": "Qwen2VLProcessor",
        "add_prefix_space": false,
        "added_tokens_decoder": added.collect::<serde_json::Map<_, _>>(),
        "additional_special_tokens": SPECIAL.get(1..).unwrap_or_default(),
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": null,
        "errors": "replace",
        "clean_up_tokenization_spaces": false,
        "split_special_tokens": false,
        "model_max_length": 32768,
    })
}

fn storage(path: &Path, error: &std::io::Error) -> Error {
    Error::Storage(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::without_special;

    #[test]
    fn the_tokenizer_learns_no_special_token() {
        let text =
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>a <| b<|im_end|>\n";
        let texts: Vec<&str> = without_special(text).collect();
        assert_eq!(texts, ["user\n", "a ", " b", "\n"]);
    }
}
