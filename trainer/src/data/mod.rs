//! From files to batches: source -> record -> chat template -> ids, labels and patches ->
//! [`crate::batch::Batch`] with its cursor.
//!
//! | module | owns |
//! |---|---|
//! | `source` | which lines there are, and reading one of them |
//! | `formats` | the formats a line may have |
//! | `record` | what all of them are read into |
//! | `paths` | which file an image path means, and that it stays in the data folder |
//! | `image_file` | bytes to RGB |
//! | `template` | messages to prompt text |
//! | `chat` | prompt text to ids, and which of them are supervised |
//! | `encoder` | a record to a [`Sample`]; label shifting, length limit |
//! | `inspection` | what all records of a dataset come to, for `trainer validate` |
//! | `vocabulary` | a tokenizer trained on a dataset |
//! | `collate` | samples to a batch |
//! | `order` | which sample comes when |
//! | `loader` | doing all of that ahead of the training step |

pub mod chat;
mod collate;
pub mod encoder;
pub mod formats;
pub mod image_file;
pub mod inspection;
mod loader;
mod order;
mod paths;
pub mod record;
pub mod source;
pub mod template;
pub mod vocabulary;

pub use collate::collate;
pub use encoder::{Encoded, Encoder, Facts, Fault, FaultKind, Fit, LengthLimit, Prompt, Sample};
pub use loader::{DataLoader, EpochEnd, LoaderOptions};
pub use order::Order;
pub use record::{Message, Part, Record, Role};
pub use source::{Dataset, DatasetOptions, SourceOptions};
