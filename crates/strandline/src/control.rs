//! `strandline remedies PID`: applies a remedy to a process that runs under strandline.

use std::process::ExitCode;

use crate::cli::RemediesOptions;

/// Applies the remedy and shows what it gave back.
pub fn apply(_options: &RemediesOptions) -> ExitCode {
    ExitCode::from(125)
}
