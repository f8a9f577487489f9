//! The VLFineTune vocabulary that operator and trainer share: the custom resource, the
//! contract between the two binaries, metric names, and the arithmetic both must agree on.
//! It knows no client, no clock and no libtorch.

pub mod checkpoint;
pub mod contract;
pub mod dataset;
pub mod evaluation;
pub mod finetune;
pub mod load;
pub mod method;
pub mod metric_names;
pub mod model;
pub mod output;
pub mod parallelism;
pub mod plan;
pub mod quantity;
pub mod run_policy;
pub mod scheduling;
pub mod status;
pub mod training;
pub mod unsupported;
pub mod uri;
pub mod workers;

pub use finetune::{VLFineTune, VLFineTuneSpec};
pub use status::VLFineTuneStatus;
