//! Several processes train as one does.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod equality;
mod fixture;
mod harness;
mod launch;
mod traffic;
mod zero;
