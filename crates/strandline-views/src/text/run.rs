//! What was run, when, and how it ended.

use strandline_report::text::{command_line, signal_name};

use super::words::{counted, duration, fit, moment};
use super::{Look, HEADING};
use crate::run::{ProcessRow, RunRow};

/// Two lines: the command, and the rest.
pub(super) fn header(look: &Look, run: &RunRow) -> String {
    let command = match run.command {
        [] => "(the command is not known)".to_owned(),
        command => command_line(command),
    };
    let command = look.paint(HEADING, &fit(&command, look.width));
    format!("{command}\n{}\n", strandline_report::text::wrapped(&facts(run), 0, look.width))
}

/// When it was run and how it ended, in a sentence or two.
pub(super) fn facts(run: &RunRow) -> String {
    let mut text = match moment(run.started_unix_ns) {
        Some(start) => format!("Started {start}, "),
        None => "Started at an unknown time, ".to_owned(),
    };
    let ran = run.written_unix_ns.checked_sub(run.started_unix_ns).map(duration);
    let ran = ran.unwrap_or_else(|| "an unknown time".to_owned());
    if !run.finished {
        text.push_str(&format!(
            "had run for {ran} when this was written: it STILL RAN then, or strandline was killed."
        ));
    } else {
        let end = match (run.exit_code, run.signal) {
            (_, Some(signal)) => format!("was killed by signal {signal}{}", signal_name(signal)),
            (Some(code), None) => format!("ended with exit code {code}"),
            (None, None) => "ended".to_owned(),
        };
        text.push_str(&format!("ran for {ran}, {end}."));
    }
    if run.process_count > 1 {
        let processes = counted(run.process_count as u64, "process", "processes");
        text.push_str(&format!(" {processes} were recorded."));
    }
    text
}

/// "in use at the end": what the end is, of these processes.
pub(super) fn at_the_end(run: Option<&RunRow>) -> &'static str {
    match run.is_some_and(|run| !run.finished) {
        true => "when this was written",
        false => "at the end",
    }
}

/// Which processes are summed up, if not all.
pub(super) fn chosen(run: Option<&RunRow>, processes: &[ProcessRow]) -> Option<String> {
    let all = run.map_or(0, |run| run.process_count);
    match processes {
        [one] if all > 1 => Some(format!("Process {} only.", one.pid)),
        _ => None,
    }
}
