//! A profile by call path as the files of other tools: pprof, speedscope, folded stacks, the
//! Firefox Profiler, Parquet and CSV.
//!
//! One function, [`export`]: from a [`Profile`] to bytes. Every format gets the same call paths
//! (a view): texts instead of indices, equal paths added up, in an order that depends on
//! nothing but the texts. So the same profile always gives the same bytes, and the sums over any
//! two formats agree. Files are written as they are made: beyond the profile itself, an export
//! holds one process's call paths at a time (Parquet: those of one row group).
//!
//! It opens no file, looks at no process and looks up no symbol; it invents no figure that the
//! profile doesn't have, and no profile makes it panic.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![forbid(unsafe_code)]

mod columns;
mod csv;
mod error;
mod firefox;
mod folded;
mod format;
mod json;
mod names;
mod parquet;
mod pprof;
mod speedscope;
mod stack_id;
mod tree;
mod view;

use std::io::Write;

use strandline_profile::{Process, Profile, Weight};

pub use error::ExportError;
pub use format::Format;

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// [`Format::Folded`]: the figure behind each stack. [`Format::Speedscope`]: the one that is
    /// shown first. The other formats have all figures.
    pub weight: Weight,
    /// Only processes with this id; `None`: all.
    pub process: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { weight: Weight::Peak, process: None }
    }
}

/// Writes `profile` in `format`. The writer gets large and small pieces: it should be buffered.
pub fn export(
    profile: &Profile,
    format: Format,
    options: &Options,
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    let wanted = |p: &&Process| options.process.is_none_or(|pid| p.pid == pid);
    let processes: Vec<&Process> = profile.processes.iter().filter(wanted).collect();
    if let (true, Some(pid)) = (processes.is_empty(), options.process) {
        return Err(ExportError::NoSuchProcess {
            pid,
            known: profile.processes.iter().map(|p| p.pid).collect(),
        });
    }
    match format {
        Format::Pprof => pprof::write(profile, &processes, to),
        Format::Speedscope => speedscope::write(profile, &processes, options.weight, to),
        Format::Folded => folded::write(&processes, options.weight, to),
        Format::Firefox => firefox::write(profile, &processes, to),
        Format::Parquet => parquet::write(profile, &processes, to),
        Format::Csv => csv::write(&processes, to),
    }
}
