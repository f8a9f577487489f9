//! The termination report.

use std::path::Path;

use vlft_crds::contract::TerminationReport;

use crate::error::{Error, Result};

/// Writes the report where the kubelet reads it: in place, since the file is a mount of its own.
pub fn write_report(path: &Path, report: &TerminationReport) -> Result<()> {
    std::fs::write(path, report.to_capped_json())
        .map_err(|cause| Error::storage("write", path, &cause))
}
