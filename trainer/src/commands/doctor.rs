//! `trainer doctor`: what this machine offers.

use crate::error::Result;

/// Says what this machine offers: device, libtorch, CUDA, memory
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {}

pub(super) fn run(args: DoctorArgs) -> Result<()> {
    let DoctorArgs {} = args;
    Err(super::not_available("doctor"))
}
