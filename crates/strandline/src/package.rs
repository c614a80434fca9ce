//! What the Python package `strandline` has done by this binary: the agent's library for a process
//! that already runs, a clock that looks at a process's memory whoever holds the GIL, and the line
//! tables of a capture that such a process has written.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use strandline_capture::read;
use strandline_report::{text, Exit, Files, Run, Setting};

use crate::cli::package::Package;
use crate::error::{Error, OUR_FAILURE};
use crate::output::Output;
use crate::shared;

/// Does what was asked for.
pub fn serve(package: &Package) -> ExitCode {
    let done = match package {
        Package::Agent => write(shared::AGENT),
        Package::Sample { pid, interval, children } => sample(*pid, *interval, *children),
        Package::Tables { file, pid, json, top } => tables(file, *pid, *json, *top),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            e.print();
            ExitCode::from(OUR_FAILURE)
        }
    }
}

fn write(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let done = stdout.write_all(bytes).and_then(|()| stdout.flush());
    match done {
        // Who asked doesn't want to know any more.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Error::Stdout),
    }
}

/// A line a look: seconds since 1970, resident bytes, and `PID:BYTES` for each descendant.
fn sample(pid: u32, interval: f64, children: bool) -> Result<(), Error> {
    let interval = Duration::from_secs_f64(interval);
    while let Some(rss) = resident(pid) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = format!("{:.6} {rss}", now.as_secs_f64());
        let below = if children { descendants(pid) } else { Vec::new() };
        for (child, rss) in below.into_iter().filter_map(|c| Some((c, resident(c)?))) {
            line.push_str(&format!(" {child}:{rss}"));
        }
        line.push('\n');
        write(line.as_bytes())?;
        if stdin_ends_within(interval) {
            break;
        }
    }
    Ok(())
}

/// Resident bytes of a process (proc(5), statm); `None` if there is no such process any more.
fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // What is left of a process that nobody waited for has no memory.
    (pages > 0).then_some(pages * rustix::param::page_size() as u64)
}

/// All processes below `pid` but this one.
fn descendants(pid: u32) -> Vec<u32> {
    let mut of: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok());
        if let Some((child, parent)) = number.and_then(|n| Some((n, parent(n)?))) {
            of.entry(parent).or_default().push(child);
        }
    }
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(next) = found.get(at) {
        let below = of.remove(next).unwrap_or_default();
        found.extend(below);
        at += 1;
    }
    found.retain(|p| *p != pid && *p != std::process::id());
    found
}

/// The parent of a process (proc(5), stat: the fourth field; the second may hold anything).
fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Waits for so long; true if stdin ended.
fn stdin_ends_within(wait: Duration) -> bool {
    let mut of = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    let milliseconds = wait.as_millis().clamp(0, i32::MAX as u128) as i32;
    let rest = wait.saturating_sub(Duration::from_millis(milliseconds as u64));
    // SAFETY: poll(2) with one entry.
    let ready = unsafe { libc::poll(&mut of, 1, milliseconds) };
    if ready == 0 {
        std::thread::sleep(rest);
    }
    ready != 0
}

fn tables(file: &Path, pid: u32, as_json: bool, top: usize) -> Result<(), Error> {
    let opened = std::fs::File::open(file);
    let opened = opened.map_err(|e| Error::Output(file.to_owned(), e))?;
    let capture = read::read(&opened)?;
    let setting = Setting {
        version: env!("CARGO_PKG_VERSION"),
        command: Vec::new(),
        exit: Exit { code: None, signal: None },
        main_pid: pid,
        code: None,
        top,
        alive: &|_| true,
    };
    let run = Run::assemble(&capture, &setting, &Files);
    let report = if as_json {
        run.to_json().map_err(|e| Error::Json(e.to_string()))?
    } else {
        text::tables(&run, std::env::current_dir().ok().as_deref())
    };
    Output::Stdout.write(&report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_parent_whose_descendant_it_is() {
        let me = std::process::id();
        assert!(resident(me).unwrap() > 1 << 18);
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(parent(child.id()), Some(me));
        assert!(descendants(me).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(resident(child.id()), None);
    }
}
