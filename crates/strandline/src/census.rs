//! `strandline census`, step by step.

use std::path::Path;
use std::process::ExitCode;

use strandline_census::{take, Census, Options};
use strandline_image::{capture, from_core};
use strandline_report::census::{render, render_diff, Show};

use crate::cli::{CensusOptions, Reading};
use crate::error::{Error, OUR_FAILURE};
use crate::output::Output;
use crate::progress::Progress;

/// Takes a census, or reads one, and writes what is asked for. The exit code is 0, or 125.
pub fn census(options: &CensusOptions) -> ExitCode {
    write_report(options.output.as_deref(), || text(options))
}

/// Makes a report and writes it to the file, or to stdout. The exit code is 0, or 125.
pub fn write_report(to: Option<&Path>, make: impl FnOnce() -> Result<String, Error>) -> ExitCode {
    let report = || {
        let output = match to {
            Some(path) => Output::prepare(Some(path))?,
            None => Output::Stdout,
        };
        match make() {
            Ok(text) => output.write(&text),
            Err(e) => {
                output.give_up();
                Err(e)
            }
        }
    };
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            e.print();
            ExitCode::from(OUR_FAILURE)
        }
    }
}

/// A value as JSON with a line's end.
pub fn to_json(value: &impl serde::Serialize) -> Result<String, Error> {
    let json = serde_json::to_string_pretty(value);
    json.map(|text| text + "\n").map_err(|e| Error::Json(e.to_string()))
}

fn text(options: &CensusOptions) -> Result<String, Error> {
    let census = census_of(options)?;
    if let Some(later) = &options.diff {
        return Ok(render_diff(&census, &read(later)?, options.types.max(20)));
    }
    if options.json {
        return to_json(&census);
    }
    let show = Show { types: options.types, pins: options.pins, sizes: options.sizes };
    Ok(render(&census, &show))
}

fn census_of(options: &CensusOptions) -> Result<Census, Error> {
    let what = Options { paths: options.reading.paths, holders: options.holders };
    if let Some(core) = &options.core {
        return of_core(core, options.exe.as_deref(), &what);
    }
    let target = options.target.as_deref().unwrap_or(Path::new(""));
    match pid_in(target) {
        Some(pid) => of_process(pid, &options.reading, &what),
        None => read(target),
    }
}

/// A process id, if the word is one.
pub fn pid_in(target: &Path) -> Option<i32> {
    target.to_str().and_then(|text| text.parse::<i32>().ok())
}

/// The census of a core file.
pub fn of_core(core: &Path, exe: Option<&Path>, what: &Options) -> Result<Census, Error> {
    let _progress = Progress::start(format!("reading {}", core.display()));
    Ok(take(&from_core(core, exe)?, what))
}

/// Times that a process is read if it was caught in the middle of a change.
const TRIES: usize = 3;
/// Share of RSS without a name from which on it was.
const TOO_MUCH: f64 = 0.005;

/// The census of a live process, as the command line wants it read.
pub fn of_process(pid: i32, reading: &Reading, what: &Options) -> Result<Census, Error> {
    let _progress = Progress::start(format!("reading process {pid}"));
    let how = strandline_image::Options {
        pause: !reading.no_pause,
        memory: reading.memory.map(|mib| mib << 20),
        ..Default::default()
    };
    take_live(pid, &how, what)
}

/// The census of a live process. It may stand where its structures don't hold for a moment: then
/// it is read again. The best of all looks counts, and all of them for how long it stood.
pub fn take_live(
    pid: i32,
    how: &strandline_image::Options,
    what: &Options,
) -> Result<Census, Error> {
    let mut best = take(&capture(pid, how)?, what);
    let bad = |c: &Census| {
        let too_much = c.unnamed_bytes as f64 > c.rss_bytes as f64 * TOO_MUCH;
        (c.doubt_count > 0 || too_much, c.doubt_count, c.unnamed_bytes)
    };
    let mut stood = best.paused_ns;
    for _ in 1..TRIES {
        if !bad(&best).0 || best.interpreters.is_empty() {
            break;
        }
        let again = take(&capture(pid, how)?, what);
        stood = stood.zip(again.paused_ns).map(|(a, b)| a + b);
        if bad(&again) < bad(&best) {
            best = again;
        }
    }
    best.paused_ns = stood;
    Ok(best)
}

/// A census that was written with `--json`.
pub fn read(path: &Path) -> Result<Census, Error> {
    let failed = |reason: String| Error::CensusFile(path.to_owned(), reason);
    let text = std::fs::read_to_string(path).map_err(|e| failed(crate::error::reason(&e)))?;
    let census: Census = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
    let wanted = strandline_census::SCHEMA;
    if census.schema != wanted {
        return Err(failed(format!("its schema is {:?}, not {wanted:?}", census.schema)));
    }
    Ok(census)
}
