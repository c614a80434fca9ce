//! Firefox Profiler: its processed JSON, a thread for each process with a table of allocations,
//! and what was in use and resident over time as counters.
//!
//! The version is one that is written by others as well; newer front ends upgrade it when they
//! load it.

mod allocations;
mod tables;
mod time;

use std::collections::HashMap;
use std::io::{self, Write};

use strandline_profile::{Process, Profile};

use self::time::{milliseconds, Times};
use crate::error::ExportError;
use crate::json;
use crate::names;
use crate::view::View;

const VERSION: u32 = 55;

/// Writes all processes.
pub fn write(
    profile: &Profile,
    processes: &[&Process],
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    // A process may have started before the run did by its own clock.
    let origin = processes.iter().map(|p| p.started).fold(profile.meta.started, u64::min);
    write!(to, "{{\"meta\":{},\"libs\":[],\"threads\":[", meta(profile, processes, origin))?;
    let pids = pids(processes);
    for (i, (process, pid)) in processes.iter().zip(&pids).enumerate() {
        if i > 0 {
            to.write_all(b",")?;
        }
        thread(process, pid, &Times::of(profile, process, origin), to)?;
    }
    to.write_all(b"],\"pages\":[],\"profilerOverhead\":[],\"counters\":[")?;
    let mut first = true;
    for (i, (process, pid)) in processes.iter().zip(&pids).enumerate() {
        let times = Times::of(profile, process, origin);
        time::counters(process, pid, &times, i, &mut first, to)?;
    }
    to.write_all(b"]}\n")?;
    to.flush()?;
    Ok(())
}

fn meta(profile: &Profile, processes: &[&Process], origin: u64) -> String {
    let category = |(name, color): &(&str, &str)| {
        format!("{{\"name\":\"{name}\",\"color\":\"{color}\",\"subcategories\":[\"Other\"]}}")
    };
    let categories: Vec<String> = tables::CATEGORIES.iter().map(category).collect();
    let main = processes.first().map_or("", |p| names::program(&p.command));
    let selected: Vec<String> = (0..processes.len()).map(|i| i.to_string()).collect();
    format!(
        "{{\"version\":24,\"preprocessedProfileVersion\":{VERSION},\"startTime\":{},\"interval\":1,\
         \"product\":{},\"importedFrom\":{},\"arguments\":{},\"processType\":0,\"stackwalk\":1,\
         \"debug\":false,\"symbolicated\":true,\"symbolicationNotSupported\":true,\
         \"usesOnlyOneStackType\":true,\"sourceCodeIsNotOnSearchfox\":true,\
         \"keepProfileThreadOrder\":true,\"initialVisibleThreads\":[{}],\"pausedRanges\":[],\
         \"extensions\":{{\"baseURL\":[],\"id\":[],\"name\":[],\"length\":0}},\
         \"categories\":[{}],\"markerSchema\":[]}}",
        milliseconds(origin),
        json::text(if main.is_empty() { "Python" } else { main }),
        json::text(&format!("strandline {}", profile.meta.strandline)),
        json::text(&profile.meta.command.join(" ")),
        selected.join(","),
        categories.join(","),
    )
}

/// What processes are called: their ids, but one that has the id of another before it, because it
/// took that one's place, gets a number as well.
fn pids(processes: &[&Process]) -> Vec<String> {
    let mut seen: HashMap<u32, u32> = HashMap::new();
    let pid = |process: &&Process| {
        let times = seen.entry(process.pid).or_default();
        *times += 1;
        match *times {
            1 => process.pid.to_string(),
            n => format!("{}.{n}", process.pid),
        }
    };
    processes.iter().map(pid).collect()
}

fn thread(process: &Process, pid: &str, times: &Times, to: &mut dyn Write) -> io::Result<()> {
    let view = View::of(process);
    write!(
        to,
        "{{\"name\":\"All threads\",\"isMainThread\":true,\"processType\":\"default\",\
         \"processName\":{},\"pid\":\"{pid}\",\"tid\":\"{pid}\",\"processStartupTime\":{start},\
         \"processShutdownTime\":null,\"registerTime\":{start},\"unregisterTime\":null,\
         \"pausedRanges\":[],",
        json::text(&names::process(process)),
        start = milliseconds(times.start),
    )?;
    let samples = format!("{},{}", milliseconds(times.start), milliseconds(times.end));
    write!(
        to,
        "\"samples\":{{\"length\":2,\"stack\":[null,null],\"time\":[{samples}],\"weight\":null,\
         \"weightType\":\"samples\"}},"
    )?;
    to.write_all(
        b"\"markers\":{\"length\":0,\"category\":[],\"data\":[],\"endTime\":[],\"name\":[],\
          \"phase\":[],\"startTime\":[]},",
    )?;
    allocations::write(&view, times, to)?;
    to.write_all(b",")?;
    tables::write(&view.tree, to)?;
    to.write_all(b"}")
}
