//! The operator on a real cluster: real Jobs, pods and volumes. A stand-in plays the trainer:
//! it speaks the whole contract and counts steps instead of training.

mod disruptions;
mod ends;
mod leader;
mod life;
mod memory;
mod refusals;
mod stand_in;
