//! `strandline remedies PROGRAM`: the program as it is, then under each remedy that applies, and
//! a table of what each of them did.

mod libraries;
mod list;
mod once;
mod streams;

use std::process::ExitCode;
use std::time::Duration;

use strandline_capture::layout;
use strandline_capture::read::Bare;
use strandline_report::remedies::{
    noise, render, Measured, NotTried, Point, Remedies, Row, Sample, REMEDIES_SCHEMA,
};

pub use list::{is_known, names};

use self::list::Remedy;
use self::once::{Once, Runner};
use self::streams::Input;
use crate::cli::{Program, RemediesOptions};
use crate::error::{Error, OUR_FAILURE};
use crate::launch::Ended;
use crate::output::Output;
use crate::progress::Progress;
use crate::target::{self, Surroundings, Target};
use crate::{shared, signals};

/// A run under a remedy is ended if it takes so many times as long as the program as it is, but
/// not before the time below.
const PATIENCE: u32 = 10;
const SHORTEST_LIMIT: Duration = Duration::from_secs(60);

/// How the program ended as it is, and whether there is a report.
type Done = (Ended, Result<(), Error>);

/// Measures and writes a table. The exit code is that of the program as it is, or 125 if
/// strandline itself failed.
pub fn measure(options: &RemediesOptions, program: &Program) -> ExitCode {
    let done = match before(options, program) {
        Ok((target, output)) => all_runs(options, &target, output),
        Err(e) => Err(e),
    };
    let (ended, reported) = match done {
        Ok(done) => done,
        Err(e) => {
            e.print();
            return ExitCode::from(OUR_FAILURE);
        }
    };
    if let Some(signal) = signals::asked_to_end() {
        signals::die_by(signal);
    }
    if let Err(e) = &reported {
        e.print();
    }
    match ended {
        Ended::Code(0) if reported.is_err() => ExitCode::from(OUR_FAILURE),
        Ended::Code(code) => ExitCode::from(code as u8),
        Ended::Signal(signal) => {
            signals::die_by(signal);
            ExitCode::from(128u8.wrapping_add(signal as u8))
        }
    }
}

/// All that can fail before the program runs.
fn before(options: &RemediesOptions, program: &Program) -> Result<(Target, Output), Error> {
    let around = Surroundings::of_this_process();
    let target = target::find(program, options.python.as_deref(), &around)?;
    let output = Output::prepare(options.output.as_deref())?;
    Ok((target, output))
}

/// Runs the program and writes the report. An error before the first run has ended is ours alone.
fn all_runs(options: &RemediesOptions, target: &Target, output: Output) -> Result<Done, Error> {
    let first = shared::agent().and_then(|agent| {
        let input = Input::new();
        let mut runner = Runner { target, agent, input, libraries: list::installed() };
        runner.as_is(true).map(|first| (runner, first))
    });
    let (runner, first) = match first {
        Ok(first) => first,
        Err(e) => {
            output.give_up();
            return Err(e);
        }
    };
    let ended = first.ended;
    let mut series = Series { options, runner, first };
    let reported = series.report();
    Ok(match reported {
        Ok(Some(text)) => (ended, output.write(&text)),
        // Somebody wanted it to end.
        Ok(None) => {
            output.give_up();
            (ended, Ok(()))
        }
        Err(e) => {
            output.give_up();
            (ended, Err(e))
        }
    })
}

/// All runs of one program.
struct Series<'a> {
    options: &'a RemediesOptions,
    runner: Runner<'a>,
    first: Once,
}

impl Series<'_> {
    /// The runs that are left, and the report; `None` if it was interrupted.
    fn report(&mut self) -> Result<Option<String>, Error> {
        if signals::asked_to_end().is_some() {
            return Ok(None);
        }
        let bare = self.first.bare.clone().ok_or(Error::NoPythonSeen)?;
        if bare.end.is_none() {
            return Err(Error::EndNotSeen(bare.pid));
        }
        let (point, point_count) = Point::of(bare.marks, bare.returns);
        // In the first run the agent didn't know the point yet.
        self.first.sample.marked_rss = marked(&bare, point);
        let (tried, not_tried) = self.divide(&bare);
        let Some((as_is, under)) = self.runs(&tried, point)? else { return Ok(None) };
        let command = shell(self.runner.target);
        let libraries = &self.runner.libraries;
        let rows = tried.iter().zip(&under);
        let mut report = Remedies {
            schema: REMEDIES_SCHEMA,
            strandline: env!("CARGO_PKG_VERSION").to_owned(),
            command: words(self.runner.target),
            command_line: command.clone(),
            python: bare.python.map(|(major, minor, micro)| format!("{major}.{minor}.{micro}")),
            pid: self.first.pid,
            repeat: self.options.repeat,
            point,
            point_count,
            noise_bytes: noise(&as_is),
            as_is: Measured::of(&as_is),
            remedies: rows
                .map(|(r, runs)| Row::of(r.shown(libraries, &command), runs, &as_is))
                .collect(),
            not_tried,
            notes: self.notes(&bare, &as_is, &tried),
        };
        report.sort();
        if self.options.json {
            return report.to_json().map(Some).map_err(|e| Error::Json(e.to_string()));
        }
        Ok(Some(render(&report)))
    }

    /// What is to be tried, and what can't be.
    fn divide(&self, bare: &Bare) -> (Vec<&'static Remedy>, Vec<NotTried>) {
        let only = &self.options.only;
        let mut tried = Vec::new();
        let mut not_tried = Vec::new();
        for r in list::ALL.iter().filter(|r| only.is_empty() || only.iter().any(|o| o == r.name)) {
            match r.obstacle(bare, &self.runner.libraries) {
                None => tried.push(r),
                Some(reason) => not_tried.push(NotTried { name: r.name, reason }),
            }
        }
        (tried, not_tried)
    }

    /// Runs it in rounds, so that what changes on the machine meanwhile meets all of them;
    /// `None` if it was interrupted.
    #[allow(clippy::type_complexity)]
    fn runs(
        &mut self,
        tried: &[&Remedy],
        point: Point,
    ) -> Result<Option<(Vec<Sample>, Vec<Vec<Sample>>)>, Error> {
        let mut as_is = vec![self.first.sample.clone()];
        let mut under: Vec<Vec<Sample>> = tried.iter().map(|_| Vec::new()).collect();
        let limit = Duration::from_nanos(self.first.sample.run_ns).saturating_mul(PATIENCE);
        let limit = limit.max(SHORTEST_LIMIT);
        let total = (tried.len() + 1) * self.options.repeat as usize;
        let mut number = 1;
        for round in 0..self.options.repeat {
            if round > 0 {
                number += 1;
                let _progress = progress(number, total, "as it is");
                let mut again = self.runner.as_is(false)?;
                if let Some(bare) = &again.bare {
                    again.sample.marked_rss = marked(bare, point);
                }
                as_is.push(again.sample);
            }
            for (remedy, samples) in tried.iter().zip(&mut under) {
                number += 1;
                let _progress = progress(number, total, remedy.name);
                samples.push(self.runner.under(remedy, point, limit)?.sample);
                if signals::asked_to_end().is_some() {
                    return Ok(None);
                }
            }
        }
        Ok(Some((as_is, under)))
    }

    fn notes(&self, bare: &Bare, as_is: &[Sample], tried: &[&Remedy]) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |when: bool, text: &str| {
            if when {
                notes.push(text.to_owned());
            }
        };
        note(
            tried.iter().any(|r| r.library.is_some() || r.name == "mimalloc-python"),
            "The end is measured at once. What an allocator gives back by itself later (jemalloc within \
             some 10 s) is not in it.",
        );
        note(
            tried.iter().any(|r| r.name == "subprocess"),
            "The peak under subprocess is that of the child, if that is higher.",
        );
        note(
            tried.iter().any(|r| r.trims_pools()),
            "The pool trim is strandline's: strandline.trim() is there in a program that `strandline run` \
             started.",
        );
        note(
            bare.flags & layout::BARE_ALIVE == 0,
            "The end was noted late: the interpreter had freed its objects already.",
        );
        note(
            bare.flags & layout::BARE_QUICK != 0,
            "The marked point comes so often that RSS was read there the quick way, which can be off by \
             some pages for each processor.",
        );
        note(
            self.runner.input.was_recorded(),
            "Stdin can be read only once: the first run was given what came, the others the same from a \
             file.",
        );
        let first = as_is.first().map(|s| s.output);
        note(
            as_is.iter().any(|s| Some(s.output) != first),
            "The program writes something else each time it runs as it is: output was not compared.",
        );
        notes
    }
}

/// RSS at the point in a run as it is.
fn marked(bare: &Bare, point: Point) -> Option<i64> {
    match point {
        Point::Mark => bare.marked,
        Point::Return => bare.returned,
        Point::End => None,
    }
}

fn progress(number: usize, total: usize, what: &str) -> Progress {
    Progress::start(format!("run {number} of {total}: {what}"))
}

fn words(target: &Target) -> Vec<String> {
    target.arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect()
}

/// The command as for a shell.
fn shell(target: &Target) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            return word.clone();
        }
        format!("'{}'", word.replace('\'', "'\\''"))
    };
    words(target).iter().map(quoted).collect::<Vec<_>>().join(" ")
}
