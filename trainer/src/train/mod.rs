//! The run loop, one step, state and evaluation.
