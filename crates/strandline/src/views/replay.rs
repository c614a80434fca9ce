//! `strandline stats --replay`: what the events of a profile add up to.

use std::fmt::Write;

use serde::Serialize;
use strandline_profile::events::{Interval, Replayed};
use strandline_profile::Amount;

use super::{open, rendered, say_doubts};
use crate::cli::views::Common;
use crate::error::Error;

/// See the module. `docs/json.md` has its fields.
#[derive(Serialize)]
struct Replay {
    schema: &'static str,
    processes: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    pid: u32,
    events: u64,
    allocated: Amount,
    freed: Amount,
    peak_bytes: u64,
    peak_time_ns: u64,
    in_use_bytes: u64,
    first_time_ns: u64,
    last_time_ns: u64,
    missing: Option<String>,
    agrees: Option<bool>,
}

impl Row {
    fn of(replayed: Replayed) -> Row {
        Row {
            pid: replayed.pid,
            events: replayed.events,
            allocated: replayed.allocated,
            freed: replayed.freed,
            peak_bytes: replayed.peak,
            peak_time_ns: replayed.peak_time,
            in_use_bytes: replayed.in_use,
            first_time_ns: replayed.span[0],
            last_time_ns: replayed.span[1],
            missing: replayed.missing,
            agrees: replayed.agrees,
        }
    }
}

/// Text or JSON of it.
pub fn make(common: &Common, json: bool) -> Result<String, Error> {
    let recorded = open(&common.file)?;
    if !recorded.has_events() {
        return Err(Error::NoEvents(common.file.clone()));
    }
    say_doubts(&common.file, &recorded.profile);
    let wanted = |replayed: &Replayed| common.process.is_none_or(|pid| replayed.pid == pid);
    let replayed = recorded.replay(Interval::ALL).into_iter().filter(wanted);
    let replay =
        Replay { schema: "strandline-replay/1", processes: replayed.map(Row::of).collect() };
    rendered(&replay, json, text)
}

fn text(replay: &Replay) -> String {
    let mut text = String::new();
    for row in &replay.processes {
        let mib = |bytes: u64| format!("{:.3} MiB", bytes as f64 / f64::from(1 << 20));
        let seconds = |ns: u64| format!("{:.3} s", ns as f64 / 1e9);
        let amount = |of: &Amount| format!("{} in {} blocks", mib(of.bytes), of.blocks);
        let verdict = match (&row.missing, row.agrees) {
            (Some(why), _) => {
                format!("events are missing: {}", strandline_report::text::printable(why))
            }
            (None, Some(true)) => {
                "the peak, and every call path, as counted without events".to_owned()
            }
            (None, Some(false)) => "not what was counted without events".to_owned(),
            (None, None) => "the run was not over".to_owned(),
        };
        let lines = [
            (
                "events",
                format!(
                    "{} from {} to {}",
                    row.events,
                    seconds(row.first_time_ns),
                    seconds(row.last_time_ns)
                ),
            ),
            ("allocated", amount(&row.allocated)),
            ("freed", amount(&row.freed)),
            ("peak", format!("{} at {}", mib(row.peak_bytes), seconds(row.peak_time_ns))),
            ("in use at the end", mib(row.in_use_bytes)),
            ("check", verdict),
        ];
        let _ = writeln!(text, "Process {}", row.pid);
        for (name, value) in lines {
            let _ = writeln!(text, "  {name:<18} {value}");
        }
    }
    text
}
