//! An explanation as text: the verdict first, then the account, what keeps it, and what helps.

use std::fmt::Write;

use strandline_explain::{Cause, Explanation, PinReport, Remedy, Sure};

use crate::text::{mib, printable, shorten, wrapped};

/// Columns of a line.
const WIDTH: usize = 100;
/// Causes below this share of RSS are put together.
const SMALL: f64 = 0.005;
/// Pins that are shown.
const PINS: usize = 3;
/// A remedy that brings less isn't worth a line, bytes.
const HELP: u64 = 256 << 10;
/// A pin that holds less isn't shown, bytes.
const PIN: u64 = 256 << 10;

fn title(out: &mut String, e: &Explanation) {
    let what = match e.pid {
        Some(pid) => format!("process {pid}"),
        None => "core file".to_owned(),
    };
    let command = shorten(&printable(&e.command_line.join(" ")), WIDTH - 30);
    let _ = writeln!(out, "{what}: {command}");
    let versions: Vec<_> = e
        .interpreters
        .iter()
        .map(|v| format!("CPython {}", v.split(' ').next().unwrap_or_default()))
        .collect();
    let found = match versions.is_empty() {
        true => "no CPython was found in it".to_owned(),
        false => versions.join(", "),
    };
    let looks = match e.looks {
        0 => "no look while it ran".to_owned(),
        n if n > 20 => format!("{n} looks while it ran"),
        1 => "one look".to_owned(),
        n => {
            let rss: Vec<_> = e.rss_looks_bytes.iter().map(|&b| mib(b as i128)).collect();
            format!("{n} looks (RSS {})", shorten(&rss.join(", "), 60))
        }
    };
    let stood = match e.paused_ns {
        Some(ns) => format!("; stood still for {:.0} ms", ns as f64 / 1e6),
        None => String::new(),
    };
    let _ = writeln!(out, "{found}; {looks}{stood}\n");
}

fn verdict(out: &mut String, e: &Explanation) {
    let _ = writeln!(out, "{}", wrapped(&printable(&e.text), 0, WIDTH));
    let sure = match e.sure {
        Sure::Measured => "This is counted, not estimated:",
        Sure::Likely => "This is likely, not certain. It rests on:",
        Sure::Open => "This is open. What is known:",
    };
    let _ = writeln!(out, "\n{sure}");
    for line in &e.rests_on {
        let _ = writeln!(out, "  - {}", wrapped(&printable(line), 4, WIDTH).trim_start());
    }
}

fn row(out: &mut String, bytes: u64, whole: u64, text: &str) {
    let share = bytes as f64 * 100.0 / whole.max(1) as f64;
    let head = format!("{:>14}{share:>7.1} %  ", mib(bytes as i128));
    let text = wrapped(&printable(text), head.chars().count(), WIDTH);
    let _ = writeln!(out, "{head}{}", text.trim_start());
}

fn causes(out: &mut String, e: &Explanation) {
    let whole = e.rss_bytes;
    let _ = writeln!(out, "\nWhere the {} of resident memory are", mib(whole as i128));
    let is_large = |c: &&Cause| c.bytes as f64 >= whole as f64 * SMALL;
    let (beside, parts): (Vec<&Cause>, Vec<&Cause>) = e.causes.iter().partition(|c| c.overlaps);
    let (large, small): (Vec<&Cause>, Vec<&Cause>) = parts.into_iter().partition(is_large);
    for cause in large {
        row(out, cause.bytes, whole, &cause.text);
    }
    let rest: u64 = small.iter().map(|c| c.bytes).sum();
    if rest > 0 {
        let text = match small.as_slice() {
            [one] => one.text.clone(),
            several => format!("{} smaller causes", several.len()),
        };
        row(out, rest, whole, &text);
    }
    for cause in beside.into_iter().filter(is_large) {
        row(out, cause.bytes, whole, &cause.text);
    }
}

fn pins(out: &mut String, e: &Explanation) {
    let mut shown: Vec<u64> = Vec::new();
    for pin in e.pins.iter().filter(|pin| pin.held_bytes >= PIN) {
        if shown.contains(&pin.address) {
            continue;
        }
        if shown.len() == PINS {
            break;
        }
        if shown.is_empty() {
            let _ = writeln!(out, "\nWhat keeps freed memory from going back, for example");
        }
        shown.push(pin.address);
        let _ = writeln!(out, "  {}", wrapped(&pin_text(pin), 4, WIDTH).trim_start());
    }
}

/// Lines that asked for what keeps arenas, those without which something would come back.
fn lines(out: &mut String, e: &Explanation) {
    let worth = e.pins_by_line.iter().filter(|line| line.held_bytes >= PIN);
    for (i, line) in worth.take(PINS).enumerate() {
        if i == 0 {
            let _ = writeln!(out, "\nWho asked for what sits among freed memory");
        }
        let text = printable(&line.text);
        let callers = match line.callers.first() {
            Some(caller) => format!(" (called by {})", printable(caller)),
            None => String::new(),
        };
        let _ = writeln!(out, "  {}", wrapped(&format!("{text}{callers}"), 4, WIDTH).trim_start());
    }
}

fn pin_text(pin: &PinReport) -> String {
    let who = match pin.type_name.as_str() {
        "" => "a block of C code".to_owned(),
        name => format!("{} × {}", pin.count, printable(name)),
    };
    let path = pin
        .path
        .as_deref()
        .map_or_else(String::new, |path| format!(", {}", shorten(&printable(path), WIDTH)));
    format!(
        "{} {:#x}: {} bytes ({who}{path}) hold back {}",
        pin.what,
        pin.address,
        pin.bytes,
        mib(pin.held_bytes as i128)
    )
}

fn remedies(out: &mut String, e: &Explanation) {
    let helps = |r: &&Remedy| {
        r.predicted_bytes.or(r.at_most_bytes).is_none_or(|bytes| bytes.unsigned_abs() >= HELP)
    };
    let (help, none): (Vec<&Remedy>, Vec<&Remedy>) = e.remedies.iter().partition(helps);
    let _ = writeln!(
        out,
        "\nWhat would bring memory back, each by itself (worked out; strandline remedies measures)"
    );
    for r in help {
        let bytes = match (r.predicted_bytes, r.is_estimate) {
            (None, _) => {
                r.at_most_bytes.map_or("?".to_owned(), |most| format!("≤{}", mib(most.into())))
            }
            (Some(bytes), false) => mib(bytes as i128),
            (Some(bytes), true) => format!("~{}", mib(bytes as i128)),
        };
        let head = format!("{bytes:>14}  {:<18}", r.name);
        let text = wrapped(&printable(&r.text), head.chars().count(), WIDTH);
        let _ = writeln!(out, "{head}{}", text.trim_start());
    }
    if !none.is_empty() {
        let names: Vec<_> = none.iter().map(|r| r.name).collect();
        let head = format!("{:>14}  ", "next to nothing");
        let text = wrapped(&names.join(", "), head.chars().count(), WIDTH);
        let _ = writeln!(out, "{head}{}", text.trim_start());
    }
}

/// The explanation as text.
pub fn render(e: &Explanation) -> String {
    let mut out = String::new();
    title(&mut out, e);
    verdict(&mut out, e);
    causes(&mut out, e);
    pins(&mut out, e);
    lines(&mut out, e);
    remedies(&mut out, e);
    if !e.doubts.is_empty() {
        let _ =
            writeln!(out, "\n{} doubts: something was read that can't be right", e.doubts.len());
        for doubt in e.doubts.iter().take(5) {
            let _ = writeln!(out, "  {doubt}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_explain::{Verdict, SCHEMA};

    fn explanation() -> Explanation {
        let cause = |name, mib: u64, kind, overlaps, text: &str| Cause {
            name,
            bytes: mib << 20,
            text: text.to_owned(),
            kind,
            overlaps,
        };
        let remedy = |name, bytes: Option<i64>, is_estimate, text: &str| Remedy {
            name,
            predicted_bytes: bytes,
            at_least_bytes: None,
            at_most_bytes: None,
            is_estimate,
            text: text.to_owned(),
        };
        Explanation {
            schema: SCHEMA,
            pid: Some(4711),
            command_line: vec!["python3".to_owned(), "app.py".to_owned()],
            interpreters: vec!["3.11.7 (main)".to_owned()],
            looks: 2,
            paused_ns: Some(12_000_000),
            rss_bytes: 100 << 20,
            rss_looks_bytes: vec![90 << 20, 100 << 20],
            peak_rss_bytes: Some(200 << 20),
            verdict: Verdict::AllocatorRetention,
            reason: "pymalloc_fragmentation",
            sure: Sure::Measured,
            text: "60.0 MiB (60 % of RSS) were freed, and allocators keep them. ".repeat(2),
            rests_on: vec!["every block and chunk was walked".to_owned()],
            causes: vec![
                cause(
                    "pymalloc_fragmentation",
                    60,
                    "freed",
                    false,
                    "freed small objects whose neighbours live",
                ),
                cause("libraries", 39, "mapped", false, "code and data\nof libraries"),
                Cause { bytes: 1 << 18, ..cause("stacks", 0, "in_use", false, "stacks") },
                Cause { bytes: 3 << 18, ..cause("other", 0, "in_use", false, "other") },
                cause("copy_on_write", 7, "mapped", true, "of these: shared with a parent"),
            ],
            pins_by_line: Vec::new(),
            pins: vec![PinReport {
                what: "arena",
                address: 0x7f00_0000_0000,
                held_bytes: 1 << 20,
                type_name: "str".to_owned(),
                count: 3,
                bytes: 192,
                path: Some("app.KEEP[2] → str".to_owned()),
            }],
            holders: Vec::new(),
            remedies: vec![
                remedy("move-pins", Some(60 << 20), true, "allocate what stays before what goes"),
                remedy("malloc-trim", Some(0), false, "malloc_trim(0)"),
                remedy("pythonmalloc-trim", None, true, "only a run can tell"),
            ],
            doubts: Vec::new(),
        }
    }

    #[test]
    fn the_verdict_comes_first() {
        let expected = "\
process 4711: python3 app.py
CPython 3.11.7; 2 looks (RSS 90.000 MiB, 100.000 MiB); stood still for 12 ms

60.0 MiB (60 % of RSS) were freed, and allocators keep them. 60.0 MiB (60 % of RSS) were freed, and
allocators keep them.

This is counted, not estimated:
  - every block and chunk was walked

Where the 100.000 MiB of resident memory are
    60.000 MiB   60.0 %  freed small objects whose neighbours live
    39.000 MiB   39.0 %  code and data of libraries
     0.750 MiB    0.8 %  other
     0.250 MiB    0.2 %  stacks
     7.000 MiB    7.0 %  of these: shared with a parent

What keeps freed memory from going back, for example
  arena 0x7f0000000000: 192 bytes (3 × str, app.KEEP[2] → str) hold back 1.000 MiB

What would bring memory back, each by itself (worked out; strandline remedies measures)
   ~60.000 MiB  move-pins         allocate what stays before what goes
             ?  pythonmalloc-trim only a run can tell
next to nothing  malloc-trim
";
        assert_eq!(render(&explanation()), expected);
    }
}
