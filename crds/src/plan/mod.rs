//! Pure arithmetic that operator and trainer must agree on.

pub mod batch;
