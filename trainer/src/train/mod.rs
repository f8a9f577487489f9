//! The run loop, one step, state and evaluation.

mod checkpointer;
mod console;
mod evaluate;
mod reporter;
mod run_loop;
mod session;
mod snapshot;
mod state;
mod step;
mod stop;
mod trainable;

pub use console::Console;
pub use reporter::{Identity, Reporter};
pub use run_loop::Summary;
pub use session::Session;
pub use snapshot::{load_weights, trained};
pub use state::{State, Totals};
pub use stop::Stop;
