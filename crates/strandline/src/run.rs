//! `strandline run`, step by step.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use strandline_capture::{layout, read};
use strandline_report::{text, Exit, Files, Run, Setting};

use crate::cli::{Parsed, Program, RunOptions};
use crate::error::{Error, OUR_FAILURE};
use crate::launch::{self, Ended};
use crate::moments::{Heard, Listener};
use crate::output::Output;
use crate::record::{self, Recorder};
use crate::target::{self, Surroundings, Target};
use crate::{shared, signals};

/// What the target and we share.
struct Shared {
    agent: File,
    capture: File,
    listener: Listener,
    recorder: Option<Recorder>,
}

/// Runs the program and writes the report. The exit code is the program's, or 125 if strandline
/// itself failed.
pub fn run(parsed: Parsed) -> ExitCode {
    let Parsed { options, program } = parsed;
    let (target, output, mut shared, running) = match before(&options, &program) {
        Ok(ready) => ready,
        Err(e) => {
            e.print();
            return ExitCode::from(OUR_FAILURE);
        }
    };
    let pid = running.pid;
    // Beyond a limit on the size of files writing fails; it doesn't end us. The program has begun
    // and keeps its own way with the signal.
    let _limit = signals::Ignored::new(libc::SIGXFSZ);
    let ended = match running.wait() {
        Ok(ended) => ended,
        Err(e) => {
            e.print();
            output.give_up();
            return ExitCode::from(OUR_FAILURE);
        }
    };
    let code = match &program {
        Program::Code(code, _) => Some(code.to_string_lossy().into_owned()),
        _ => None,
    };
    let main = Main { pid: pid as u32, command: &target.arguments, ended, code };
    let recorded = shared.recorder.take().map(|recorder| recorder.finish(ended)).transpose();
    // The profile is there by now; what takes longer is added to it.
    let mut heard = shared.listener.finish(&options);
    let types = heard.types.take();
    let recorded = recorded.and_then(|r| r.map(|r| r.with(types)).transpose());
    let (agent, capture) = (&shared.agent, &shared.capture);
    let reported = report(&options, &main, agent, capture, heard);
    let reported = reported.and_then(|text| output.write(&text));
    if let Ok(Some(written)) = &recorded {
        written.announce();
    }
    let failures = [reported.as_ref().err(), recorded.as_ref().err()];
    for e in failures.iter().flatten() {
        e.print();
    }
    match ended {
        Ended::Code(0) if failures.iter().any(Option::is_some) => ExitCode::from(OUR_FAILURE),
        Ended::Code(code) => ExitCode::from(code as u8),
        Ended::Signal(signal) => {
            signals::die_by(signal);
            // A shell's way to say it, should the signal not have ended us.
            ExitCode::from(128u8.wrapping_add(signal as u8))
        }
    }
}

/// All that can fail before the program runs.
fn before(
    options: &RunOptions,
    program: &Program,
) -> Result<(Target, Output, Shared, launch::Running), Error> {
    let around = Surroundings::of_this_process();
    let target = target::find(program, options.python.as_deref(), &around)?;
    let (report, profile) = match options.stacks {
        true => (None, Some(record::place(options.output.as_deref(), options.force, program)?)),
        false => (options.output.as_deref(), None),
    };
    let output = Output::prepare(report)?;
    match start(options, &target, profile) {
        Ok((shared, running)) => Ok((target, output, shared, running)),
        Err(e) => {
            output.give_up();
            Err(e)
        }
    }
}

fn start(
    options: &RunOptions,
    target: &Target,
    profile: Option<record::Wanted>,
) -> Result<(Shared, launch::Running), Error> {
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    let bits = bit(!options.no_follow, layout::OPTION_FOLLOW)
        | bit(options.all, layout::OPTION_ALL)
        | bit(!options.functions.is_empty(), layout::OPTION_FUNCTIONS)
        | bit(options.census_at_exit || options.types, layout::OPTION_CENSUS_EXIT)
        | bit(options.census_at_peak, layout::OPTION_CENSUS_PEAK)
        | bit(options.explain, layout::OPTION_EXPLAIN)
        | bit(options.stacks, layout::OPTION_STACKS)
        | bit(options.native, layout::OPTION_NATIVE)
        | bit(options.async_stacks, layout::OPTION_ASYNC)
        | bit(options.events, layout::OPTION_EVENTS);
    let capture = shared::capture(bits, &options.functions.join("\n"), options.temporary)?;
    let agent = shared::agent()?;
    let (agent_name, capture_name) =
        (shared::name_for_others(&agent), shared::name_for_others(&capture));
    let inode = agent_inode(&agent);
    let listener = Listener::start(&capture, move |pid| holds_agent(pid, inode))?;
    let running = launch::start(target, &agent_name, &capture_name)?;
    let record = |wanted: record::Wanted| {
        let command = target.arguments.iter().map(|a| a.to_string_lossy().into_owned());
        let place = wanted.place(running.pid as u32);
        Recorder::start(&capture, place, command.collect(), options.events)
    };
    let recorder = match profile.map(record).transpose() {
        Ok(recorder) => recorder,
        Err(e) => {
            // The program runs already, and goes on.
            e.print();
            None
        }
    };
    Ok((Shared { agent, capture, listener, recorder }, running))
}

/// The process that was started, after its end.
struct Main<'a> {
    pid: u32,
    command: &'a [OsString],
    ended: Ended,
    /// What `-c` was given.
    code: Option<String>,
}

fn report(
    options: &RunOptions,
    main: &Main<'_>,
    agent: &File,
    capture: &File,
    heard: Heard,
) -> Result<String, Error> {
    let capture = read::read(capture)?;
    let inode = agent_inode(agent);
    let alive = |pid: u32| holds_agent(pid, inode);
    let setting = Setting {
        version: env!("CARGO_PKG_VERSION"),
        command: main.command.iter().map(|a| a.to_string_lossy().into_owned()).collect(),
        exit: match main.ended {
            Ended::Code(code) => Exit { code: Some(code), signal: None },
            Ended::Signal(signal) => Exit { code: None, signal: Some(signal) },
        },
        main_pid: main.pid,
        code: main.code.as_deref(),
        top: options.top,
        alive: &alive,
    };
    let mut run = Run::assemble(&capture, &setting, &Files);
    run.censuses = heard.moments;
    run.add_accounts(heard.lines);
    if options.json {
        return run.to_json().map_err(|e| Error::Json(e.to_string()));
    }
    let cwd = std::env::current_dir().ok();
    Ok(text::render(&run, cwd.as_deref()))
}

fn agent_inode(agent: &File) -> u64 {
    agent.metadata().map(|m| m.ino()).unwrap_or(0)
}

/// True if process `pid` runs and has our agent mapped: the number alone may have been given to
/// another process since.
fn holds_agent(pid: u32, inode: u64) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let inode = inode.to_string();
    maps.lines().any(|l| l.split_ascii_whitespace().nth(4) == Some(&*inode))
}
