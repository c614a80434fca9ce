//! `strandline explain`, step by step.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use strandline_census::{Census, Options};
use strandline_explain::{
    did_nothing, explain as explained, explain_profile, heap_paths, pin_paths, Verdict,
};
use strandline_report::explain::render;

use crate::call_paths::CallPaths;
use crate::census::{of_core, of_process, pid_in, read, to_json, write_report};
use crate::cli::ExplainOptions;
use crate::error::Error;
use crate::views;

/// Between a look that says that a process leaks, or isn't collected, and the one that has to bear
/// it out.
const BETWEEN: Duration = Duration::from_millis(500);

/// Looks at the target and writes what it comes to. The exit code is 0, or 125.
pub fn explain(options: &ExplainOptions) -> ExitCode {
    write_report(options.output.as_deref(), || text(options))
}

fn text(options: &ExplainOptions) -> Result<String, Error> {
    if let ([path], None) = (options.targets.as_slice(), &options.core) {
        if views::is_profile(path) {
            return of_profile(path, options.json);
        }
    }
    let mut looks = looks(options)?;
    look_again(&mut looks, options);
    let Some(mut explanation) = explained(&looks) else { return Err(Error::NothingToExplain) };
    let is_tagged = |c: &&Census| {
        !c.pinned.tagged.is_empty() || c.heaps.iter().any(|heap| !heap.tagged.is_empty())
    };
    let tagged = looks.last().filter(is_tagged);
    if let Some((census, paths)) = tagged.and_then(|c| Some((c, CallPaths::of(c.pid?)?))) {
        explanation.pins_by_line = pin_paths(&census.pinned, |tag| paths.place(tag));
        explanation.pins_by_line.extend(heap_paths(&census.heaps, |tag| paths.place(tag)));
    }
    if options.json {
        return to_json(&explanation);
    }
    Ok(render(&explanation))
}

/// What the profile of a run says, by process.
fn of_profile(path: &Path, json: bool) -> Result<String, Error> {
    let profile = views::read(path)?;
    let all: Vec<_> = profile.processes.iter().map(|p| explain_profile(&profile, p)).collect();
    match all.as_slice() {
        [] => Err(Error::NothingToExplain),
        [one] if json => to_json(one),
        several if json => to_json(&several),
        several => Ok(several.iter().map(render).collect::<Vec<_>>().join("\n")),
    }
}

/// Before a running process is said to leak, or not to be collected, after one look it gets a second
/// one: a table that was filled once and is used since looks like a leak, but holds no more a moment
/// later; and a look into a running collection shows all of its garbage. One that did nothing
/// meanwhile is no wiser.
fn look_again(looks: &mut Vec<Census>, options: &ExplainOptions) {
    let [first] = looks.as_slice() else { return };
    let pid = match options.targets.as_slice() {
        [one] if options.core.is_none() => pid_in(one),
        _ => None,
    };
    let is_doubtful = |verdict| matches!(verdict, Verdict::Referenced | Verdict::Garbage);
    let says_so = || explained(looks).is_some_and(|e| is_doubtful(e.verdict));
    let Some(pid) = pid.filter(|_| says_so()) else { return };
    std::thread::sleep(BETWEEN);
    let what = Options { paths: options.reading.paths, holders: true };
    let Ok(second) = of_process(pid, &options.reading, &what) else { return };
    if !did_nothing(first, &second) {
        looks.push(second);
    }
}

fn looks(options: &ExplainOptions) -> Result<Vec<Census>, Error> {
    let what = Options { paths: options.reading.paths, holders: true };
    if let Some(core) = &options.core {
        return Ok(vec![of_core(core, options.exe.as_deref(), &what)?]);
    }
    match options.targets.as_slice() {
        [one] if pid_in(one).is_some() => live(pid_in(one).unwrap_or(0), options, &what),
        files => files.iter().map(|file| of_file(file)).collect(),
    }
}

/// Looks at a live process as often as is asked for. It may end meanwhile: then what was seen of
/// it counts.
fn live(pid: i32, options: &ExplainOptions, what: &Options) -> Result<Vec<Census>, Error> {
    let mut looks = Vec::new();
    for number in 0..options.times {
        if number > 0 {
            std::thread::sleep(options.every);
        }
        match of_process(pid, &options.reading, what) {
            Ok(look) => looks.push(look),
            Err(e) if looks.is_empty() => return Err(e),
            Err(e) => {
                e.print();
                break;
            }
        }
    }
    Ok(looks)
}

fn of_file(path: &Path) -> Result<Census, Error> {
    if pid_in(path).is_some() {
        return Err(Error::OneProcess(path.to_owned()));
    }
    read(path)
}
