//! `strandline remedies PID`: applies a remedy to a process that runs under strandline.

use std::process::ExitCode;

use serde_json::json;
use strandline_capture::layout;
use strandline_census::Census;
use strandline_report::census::render_diff;

use crate::census::{take_live, to_json, write_report};
use crate::cli::RemediesOptions;
use crate::enter::Process;
use crate::error::Error;
use crate::progress::Progress;

/// Types that changed, in the text.
const TYPES: usize = 8;

/// Applies the remedy and shows what it gave back. The exit code is 0, or 125.
pub fn apply(options: &RemediesOptions) -> ExitCode {
    write_report(options.output.as_deref(), || text(options))
}

/// The remedy that is asked for: its number, and its name for people and programs.
fn remedy(options: &RemediesOptions) -> (u32, &'static str, &'static str) {
    if options.collect {
        (layout::REMEDY_COLLECT, "collect", "gc.collect()")
    } else if options.pool_trim {
        (layout::REMEDY_POOL_TRIM, "pool-trim", "the pool trim")
    } else {
        (layout::REMEDY_MALLOC_TRIM, "malloc-trim", "malloc_trim(0)")
    }
}

fn text(options: &RemediesOptions) -> Result<String, Error> {
    // The command line has one; a number that no process can have is none's.
    let pid = options.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
    let (kind, name, words) = remedy(options);
    let process = Process::find(pid)?;
    let _progress = Progress::start(format!("{words} in process {pid}"));
    let look = || {
        take_live(
            pid,
            &Default::default(),
            &strandline_census::Options { paths: 0, holders: false },
        )
    };
    let before = look()?;
    process.apply(kind)?;
    let after = look()?;
    if options.json {
        return to_json(&value(pid, name, &before, &after));
    }
    Ok(format!("{words} in process {pid}\n\n{}", render_diff(&before, &after, TYPES)))
}

fn value(pid: i32, remedy: &str, before: &Census, after: &Census) -> serde_json::Value {
    let bytes_of =
        |c: &Census, name: &str| c.classes.iter().find(|k| k.name == name).map_or(0, |k| k.bytes);
    let mut names: Vec<&str> = before.classes.iter().map(|k| k.name.as_str()).collect();
    let fresh = after.classes.iter().map(|k| k.name.as_str());
    names.extend(fresh.filter(|name| bytes_of(before, name) == 0));
    let mut seen = Vec::new();
    names.retain(|name| {
        !seen.contains(name) && {
            seen.push(*name);
            true
        }
    });
    let classes: Vec<_> = names
        .into_iter()
        .map(|name| {
            json!({
                "name": name,
                "before_bytes": bytes_of(before, name),
                "after_bytes": bytes_of(after, name),
            })
        })
        .collect();
    json!({
        "schema": "strandline-remedy/1",
        "pid": pid,
        "remedy": remedy,
        "rss_before_bytes": before.rss_bytes,
        "rss_after_bytes": after.rss_bytes,
        "returned_bytes": before.rss_bytes as i64 - after.rss_bytes as i64,
        "classes": classes,
    })
}
