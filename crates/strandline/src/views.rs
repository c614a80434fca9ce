//! The verbs that show a profile by call path, step by step: read it, say on stderr what is
//! doubtful, hand it to the view, write what comes of it.

mod diff;
mod export;
mod flamegraph;
mod replay;
mod report;
mod stats;
mod symbolise;
mod table;
mod tree;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;
use strandline_profile::events::{Interval, Recorded};
use strandline_profile::{FileError, Profile};
use strandline_views::text::Look;

use crate::census::to_json;
use crate::cli::views::{Part, View};
use crate::error::Error;

/// Shows what is asked for. The exit code is 0, or 125.
pub fn show(view: &View) -> ExitCode {
    match view {
        View::Report(options) => report::show(options),
        View::Tree(options) => tree::show(options),
        View::Table(options) => table::show(options),
        View::Stats(options) => stats::show(options),
        View::Diff(options) => diff::show(options),
        View::Flamegraph(options) => flamegraph::show(options),
        View::Export(options) => export::show(options),
        View::Symbolise(options) => symbolise::show(options),
    }
}

/// True if there is a profile at `path`.
pub fn is_profile(path: &Path) -> bool {
    let mut start = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && strandline_profile::is_profile(&start)
}

/// Opens a profile.
fn open(path: &Path) -> Result<Recorded, Error> {
    let failed = |e: FileError| match e {
        FileError::Io(e) => Error::ProfileUnreadable(path.to_owned(), e),
        e => Error::ProfileFile(path.to_owned(), e),
    };
    let file = File::open(path).map_err(|e| Error::ProfileUnreadable(path.to_owned(), e))?;
    Recorded::open(file).map_err(failed)
}

/// What is doubtful about a profile goes to stderr.
fn say_doubts(path: &Path, profile: &Profile) {
    for doubt in &profile.doubts {
        let text = strandline_report::text::printable(doubt);
        crate::error::say(&format!("{}: {text}", path.display()));
    }
}

/// Reads a profile. What is doubtful about it goes to stderr.
pub fn read(path: &Path) -> Result<Profile, Error> {
    read_part(path, &Part::default())
}

/// Reads a part of a profile, which needs events unless it is the whole.
fn read_part(path: &Path, part: &Part) -> Result<Profile, Error> {
    let recorded = open(path)?;
    let profile = if part.from.is_none() && part.to.is_none() {
        recorded.profile
    } else if recorded.has_events() {
        recorded.part(Interval::seconds(part.from, part.to))
    } else {
        return Err(Error::NoEvents(path.to_owned()));
    };
    say_doubts(path, &profile);
    Ok(profile)
}

/// JSON, or text as the place it goes to wants it.
fn rendered<T: Serialize>(
    value: &T,
    json: bool,
    text: impl FnOnce(&T) -> String,
) -> Result<String, Error> {
    if json {
        to_json(value)
    } else {
        Ok(text(value))
    }
}

/// Least columns that text is made for; in a narrower terminal it is wrapped.
const NARROWEST: usize = 60;
/// Columns where there is no terminal that says how many it has.
const USUAL: usize = 120;

/// How text for the file, or for stdout, is to look.
fn look(profile: &Path, to: Option<&Path>) -> Look {
    let stdout = io::stdout();
    let terminal = to.is_none() && stdout.is_terminal();
    // anstream knows NO_COLOR, CLICOLOR_FORCE and TERM.
    let colour = to.is_none() && AutoStream::choice(&stdout) != ColorChoice::Never;
    let size = terminal.then(terminal_size::terminal_size).flatten();
    let width = size.map_or(USUAL, |(width, _)| usize::from(width.0));
    Look {
        width: width.max(NARROWEST),
        colour,
        boxes: terminal,
        cwd: std::env::current_dir().ok(),
        file: strandline_report::text::printable(&profile.to_string_lossy()),
    }
}

/// How many rows: all with 0, and all for programs.
fn rows(top: Option<usize>, for_programs: bool) -> usize {
    match top {
        Some(0) => usize::MAX,
        Some(top) => top,
        None if for_programs => usize::MAX,
        None => 20,
    }
}
