//! `trainer generate`: text from images and a prompt, or from every record of a labelled file.

mod answers;
mod report;

use std::path::PathBuf;

use super::compute::ComputeArgs;
use crate::data::{Message, Part, Role};
use crate::error::{Error, Result};
use answers::Answers;

/// What is asked about an image where nobody says.
const DEFAULT_PROMPT: &str = "Describe this image.";

/// Generates text from images and a prompt, or for every record of a labelled file
#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    /// Folder of a model, or of a LoRA adapter
    model: PathBuf,
    /// Image to look at; may be given several times
    #[arg(long, conflicts_with = "data")]
    image: Vec<PathBuf>,
    /// What to ask; for --data, what is asked beside each image of an image-text record
    #[arg(long)]
    prompt: Option<String>,
    /// Labelled data (a folder with metadata.jsonl, or a jsonl file): answers each record and
    /// prints the share of exact matches
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder that the data's image paths are resolved against first
    #[arg(long, requires = "data")]
    image_root: Option<PathBuf>,
    /// With --data: writes one JSON line for each record
    #[arg(long, requires = "data")]
    out: Option<PathBuf>,
    /// With --data: writes the summary as JSON
    #[arg(long, requires = "data")]
    summary: Option<PathBuf>,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_new_tokens: u32,
    /// Most records answered at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch_size: u32,
    /// Folder of an adapter's base model, where its adapter_config.json does not lead to it
    #[arg(long)]
    base: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArgs,
}

pub(super) fn run(args: GenerateArgs) -> Result<()> {
    let answers = Answers::open(&args)?;
    match &args.data {
        Some(data) => {
            let report = answers.of_dataset(&args, data)?;
            report.write(args.out.as_deref(), args.summary.as_deref())?;
            println!("{report}");
        }
        None => println!("{}", answers.of_prompt(&question(&args)?, &args.image)?),
    }
    Ok(())
}

/// The images first, then the words.
fn question(args: &GenerateArgs) -> Result<Vec<Message>> {
    let prompt = match (&args.prompt, args.image.is_empty()) {
        (Some(prompt), _) => prompt.as_str(),
        (None, false) => DEFAULT_PROMPT,
        (None, true) => {
            return Err(Error::User(
                "nothing to answer: give --prompt, --image, or --data".into(),
            ));
        }
    };
    let mut parts = vec![Part::Image; args.image.len()];
    parts.push(Part::Text(prompt.to_owned()));
    Ok(vec![Message {
        role: Role::User,
        parts,
    }])
}
