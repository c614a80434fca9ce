//! `strandline remedies PROGRAM`: the program under each remedy, measured.

use std::process::ExitCode;

use crate::cli::{Program, RemediesOptions};

/// Measures and shows a table.
pub fn measure(_options: &RemediesOptions, _program: &Program) -> ExitCode {
    ExitCode::from(125)
}
