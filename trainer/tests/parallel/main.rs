//! Several processes train as one does.

mod equality;
mod fixture;
mod launch;
