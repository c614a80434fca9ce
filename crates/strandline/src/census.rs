//! `strandline census`, step by step.

use std::path::Path;
use std::process::ExitCode;

use strandline_census::{take, Census, Options};
use strandline_image::{capture, from_core};
use strandline_report::census::{render, render_diff, Show};

use crate::cli::CensusOptions;
use crate::error::{Error, OUR_FAILURE};
use crate::output::Output;
use crate::progress::Progress;

/// Takes a census, or reads one, and writes what is asked for. The exit code is 0, or 125.
pub fn census(options: &CensusOptions) -> ExitCode {
    match report(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            e.print();
            ExitCode::from(OUR_FAILURE)
        }
    }
}

fn report(options: &CensusOptions) -> Result<(), Error> {
    let output = match &options.output {
        Some(path) => Output::prepare(Some(path))?,
        None => Output::Stdout,
    };
    let text = match text(options) {
        Ok(text) => text,
        Err(e) => {
            output.give_up();
            return Err(e);
        }
    };
    output.write(&text)
}

fn text(options: &CensusOptions) -> Result<String, Error> {
    let census = census_of(options)?;
    if let Some(later) = &options.diff {
        return Ok(render_diff(&census, &read(later)?, options.types.max(20)));
    }
    if options.json {
        let json = serde_json::to_string_pretty(&census);
        return json.map(|text| text + "\n").map_err(|e| Error::Json(e.to_string()));
    }
    let show = Show { types: options.types, pins: options.pins, sizes: options.sizes };
    Ok(render(&census, &show))
}

fn census_of(options: &CensusOptions) -> Result<Census, Error> {
    let what = Options { paths: options.paths };
    if let Some(core) = &options.core {
        let _progress = Progress::start(format!("reading {}", core.display()));
        return Ok(take(&from_core(core, options.exe.as_deref())?, &what));
    }
    let target = options.target.as_deref().unwrap_or(Path::new(""));
    match target.to_str().and_then(|text| text.parse::<i32>().ok()) {
        Some(pid) => {
            let _progress = Progress::start(format!("reading process {pid}"));
            let how = strandline_image::Options {
                pause: !options.no_pause,
                memory: options.memory.map(|mib| mib << 20),
                ..Default::default()
            };
            take_live(pid, &how, &what)
        }
        None => read(target),
    }
}

/// Times that a process is read if it was caught in the middle of a change.
const TRIES: usize = 3;
/// Share of RSS without a name from which on it was.
const TOO_MUCH: f64 = 0.005;

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
fn read(path: &Path) -> Result<Census, Error> {
    let failed = |reason: String| Error::CensusFile(path.to_owned(), reason);
    let text = std::fs::read_to_string(path).map_err(|e| failed(crate::error::reason(&e)))?;
    let census: Census = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
    let wanted = strandline_census::SCHEMA;
    if census.schema != wanted {
        return Err(failed(format!("its schema is {:?}, not {wanted:?}", census.schema)));
    }
    Ok(census)
}
