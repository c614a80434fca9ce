//! What a profile by call path tells of why memory stays: less than a census, which sees the
//! objects, but over the whole run, and with the lines that asked.

use strandline_profile::{Domain, Path, Process, Profile, State};

use crate::mib;
use crate::model::{Cause, Explanation, Remedy, Sure, Verdict, SCHEMA};
use crate::verdict::Judged;

/// What is less than this is no reason to worry, bytes, and so is what is less than one part in so
/// many of RSS.
const LEAST: (u64, u64) = (2 << 20, 8);
/// Call paths that are named.
const NAMED: usize = 3;
/// A run must have been watched at least so long for growth to mean anything, nanoseconds, and at
/// so many points.
const LONG: (u64, usize) = (30_000_000_000, 40);

/// Explains a process of a profile.
pub fn explain_profile(profile: &Profile, process: &Process) -> Explanation {
    let t = &process.totals;
    let judged = judge(process);
    let (major, minor, micro) = process.python;
    let known = t.in_use + t.stranded_arenas + t.stranded_heap;
    Explanation {
        schema: SCHEMA,
        pid: i32::try_from(process.pid).ok(),
        command_line: process.command.clone(),
        interpreters: match process.python {
            (0, ..) => Vec::new(),
            _ => vec![format!("{major}.{minor}.{micro}")],
        },
        looks: process.timeline.points.len(),
        paused_ns: None,
        rss_bytes: t.rss.max(known),
        rss_looks_bytes: process.timeline.points.iter().map(|p| p.rss).collect(),
        peak_rss_bytes: (t.rss_peak > 0).then_some(t.rss_peak),
        verdict: judged.verdict,
        reason: judged.reason,
        sure: judged.sure,
        text: judged.text,
        rests_on: judged.rests_on,
        causes: causes(process),
        pins: Vec::new(),
        pins_by_line: Vec::new(),
        holders: Vec::new(),
        remedies: remedies(process),
        doubts: profile.doubts.clone(),
    }
}

fn judge(process: &Process) -> Judged {
    let t = &process.totals;
    let least = LEAST.0.max(t.rss / LEAST.1);
    let stranded = t.stranded_arenas + t.stranded_heap;
    let mut rests_on = vec![
        format!(
            "{} in use and {} stranded at the end, of {} resident; {} in use at the peak",
            mib(t.in_use),
            mib(stranded),
            mib(t.rss),
            mib(t.peak)
        ),
        "a profile says who asked for what is in use, not who refers to it: strandline explain PID \
         does"
            .to_owned(),
    ];
    if let Some(grown) = growth(process).filter(|&grown| grown >= least) {
        rests_on.insert(
            0,
            "the least that was in use rose from each quarter of the run to the next".to_owned(),
        );
        return Judged {
            verdict: Verdict::Referenced,
            reason: "growth",
            sure: Sure::Likely,
            text: format!(
                "What is in use grew by {} over the run and never fell back. Most of what is left \
                 was asked for by {}.",
                mib(grown),
                largest(process, |_| true)
            ),
            rests_on,
        };
    }
    if stranded >= least && stranded >= t.in_use / 4 {
        let (reason, who, bytes) = if t.stranded_arenas >= t.stranded_heap {
            ("free_blocks", "Python's allocator of small objects", t.stranded_arenas)
        } else {
            ("heap_holes", "the C library's malloc", t.stranded_heap)
        };
        return Judged {
            verdict: Verdict::AllocatorRetention,
            reason,
            sure: Sure::Measured,
            text: format!(
                "{} were freed and did not go back to the system; {} of them are kept by {who}. \
                 They will be used again by what is allocated next.",
                mib(stranded),
                mib(bytes)
            ),
            rests_on,
        };
    }
    let in_c = in_use(process, |path| matches!(path.domain, Domain::Malloc | Domain::Mmap));
    if in_c >= least && in_c * 2 >= t.in_use {
        return Judged {
            verdict: Verdict::Native,
            reason: "c_code",
            sure: Sure::Measured,
            text: format!(
                "{} of what is in use were asked for by C code, most by what was called from {}.",
                mib(in_c),
                largest(process, |path| matches!(path.domain, Domain::Malloc | Domain::Mmap))
            ),
            rests_on,
        };
    }
    if t.in_use < least || t.in_use * 2 <= t.peak {
        return Judged {
            verdict: Verdict::Healthy,
            reason: "returned",
            sure: Sure::Measured,
            text: "Nothing is wrong: most of what was in use at the peak was freed, and went back."
                .to_owned(),
            rests_on,
        };
    }
    Judged {
        verdict: Verdict::Unknown,
        reason: "in_use",
        sure: Sure::Open,
        text: format!(
            "Most of it is in use, asked for by {}. Whether it is still needed a profile can't \
             tell; a run that goes on longer, or strandline explain PID, may.",
            largest(process, |_| true)
        ),
        rests_on,
    }
}

/// By how much what is in use grew, if it did so in every quarter of a long run that goes on: a
/// program that fills its tables and ends looks the same, so that one is never meant.
fn growth(process: &Process) -> Option<u64> {
    let points = &process.timeline.points;
    let (first, last) = (points.first()?, points.last()?);
    let long = last.time.saturating_sub(first.time) >= LONG.0 && points.len() >= LONG.1;
    if process.state != State::Running || !long {
        return None;
    }
    let quarter = points.len() / 4;
    let least: Vec<u64> = points
        .chunks(quarter.max(1))
        .take(4)
        .filter_map(|part| part.iter().map(|p| p.in_use).min())
        .collect();
    let rises = least.windows(2).all(|pair| matches!(pair, [a, b] if b > a));
    // The first quarter is the start.
    rises.then(|| {
        least.last().copied().unwrap_or(0).saturating_sub(least.get(1).copied().unwrap_or(0))
    })
}

fn in_use(process: &Process, fits: impl Fn(&Path) -> bool) -> u64 {
    process.paths.iter().filter(|path| fits(path)).map(|path| path.in_use().bytes).sum()
}

/// The call paths with most in use, in words.
fn largest(process: &Process, fits: impl Fn(&Path) -> bool) -> String {
    let mut paths: Vec<&Path> = process.paths.iter().filter(|path| fits(path)).collect();
    paths.sort_by_key(|path| (std::cmp::Reverse(path.in_use().bytes), path.node));
    let named: Vec<String> = paths
        .iter()
        .take(NAMED)
        .map(|path| format!("{} ({})", place(process, path), mib(path.in_use().bytes)))
        .collect();
    match named.is_empty() {
        true => "nobody that is known".to_owned(),
        false => named.join(", "),
    }
}

fn place(process: &Process, path: &Path) -> String {
    let node = process.innermost_python(path.node);
    let node = process.nodes.get(node as usize).filter(|_| node != 0);
    let Some(frame) = node.and_then(|node| process.frames.get(node.frame as usize)) else {
        return "code outside Python".to_owned();
    };
    let text = |index: u32| process.strings.get(index as usize).map_or("?", String::as_str);
    format!("{} ({}:{})", text(frame.function), text(frame.file), frame.line)
}

fn causes(process: &Process) -> Vec<Cause> {
    let t = &process.totals;
    let cause = |name, bytes, kind, text: &str| Cause {
        name,
        bytes,
        text: text.to_owned(),
        kind,
        overlaps: false,
    };
    let rest = t.rss.saturating_sub(t.in_use + t.stranded_arenas + t.stranded_heap);
    let mut all = vec![
        cause("in_use", t.in_use, "in_use", "in use: asked for by the program and not given back"),
        cause(
            "python_free",
            t.stranded_arenas,
            "freed",
            "freed, kept by Python's allocator of small objects",
        ),
        cause("malloc_free", t.stranded_heap, "freed", "freed, kept by the C library's malloc"),
        cause(
            "rest",
            rest,
            "mapped",
            "the interpreter and its libraries, stacks, the allocators' bookkeeping",
        ),
    ];
    all.retain(|cause| cause.bytes > 0);
    all.sort_by_key(|cause| std::cmp::Reverse(cause.bytes));
    all
}

/// A profile knows how much allocators keep, not where: what comes back is no more than that.
fn remedies(process: &Process) -> Vec<Remedy> {
    let t = &process.totals;
    let remedy = |name, most: Option<u64>, text: &str| Remedy {
        name,
        // Where nothing is kept nothing can come.
        predicted_bytes: most.filter(|&most| most == 0).map(|_| 0),
        at_least_bytes: None,
        at_most_bytes: most.filter(|&most| most > 0).map(|most| most as i64),
        is_estimate: true,
        text: text.to_owned(),
    };
    let trim =
        "import ctypes; ctypes.CDLL(None).malloc_trim(0): at most what malloc keeps, but for \
                what lies in pages that are in use";
    let mut all = vec![remedy("malloc-trim", Some(t.stranded_heap), trim)];
    if ((3, 10)..=(3, 13)).contains(&(process.python.0, process.python.1)) {
        let text =
            "strandline.trim() in a program that runs under strandline: at most three of four \
                    pages of what Python's allocator keeps, if all of that are free pools";
        all.push(remedy("pool-trim", Some(t.stranded_arenas / 4 * 3), text));
    }
    all.push(remedy(
        "collect",
        None,
        "import gc; gc.collect(): what of it is garbage a profile can't tell",
    ));
    all
}

#[cfg(test)]
mod tests {
    use strandline_profile::{Amount, Builder, Frame, FrameKind, Point, Totals};

    use super::*;

    fn process(totals: Totals) -> Process {
        let mut builder = Builder::new();
        let node = builder.python_path([("<module>", "app.py", 3), ("load", "app.py", 7)]);
        let process = builder.process();
        process.python = (3, 13, 0);
        process.totals = totals;
        process.paths.push(Path {
            node,
            allocated: Amount { bytes: totals.in_use, blocks: 1 },
            ..Path::default()
        });
        builder.finish()
    }

    #[test]
    fn who_holds_it_is_told_by_a_line_of_python() {
        let mut builder = Builder::new();
        let line = builder.python_path([("load", "app.py", 7)]);
        let file = builder.string("libz.so.1");
        let native = Frame { file, kind: FrameKind::Native, address: 0x12, ..Frame::default() };
        let native = builder.frame(native);
        let (inner, alone) = (builder.node(line, native), builder.node(0, native));
        let process = builder.finish();
        let named = |node| place(&process, &Path { node, ..Path::default() });
        assert_eq!(named(inner), "load (app.py:7)");
        assert_eq!(named(alone), "code outside Python");
        assert_eq!(named(0), "code outside Python");
    }

    fn explained(process: &Process) -> Explanation {
        let e = explain_profile(&Profile::default(), process);
        let sum: u64 = e.causes.iter().map(|c| c.bytes).sum();
        assert_eq!(sum, e.rss_bytes);
        e
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_kept_by_an_allocator() {
        let totals = Totals {
            in_use: 10 * MIB,
            peak: 100 * MIB,
            rss: 80 * MIB,
            stranded_arenas: 60 * MIB,
            ..Totals::default()
        };
        let e = explained(&process(totals));
        assert_eq!((e.verdict, e.reason), (Verdict::AllocatorRetention, "free_blocks"));
        assert!(e.text.contains("60.0 MiB"), "{}", e.text);
        let most: Vec<_> =
            e.remedies.iter().map(|r| (r.name, r.predicted_bytes, r.at_most_bytes)).collect();
        assert_eq!(
            most,
            [
                ("malloc-trim", Some(0), None),
                ("pool-trim", None, Some(45 << 20)),
                ("collect", None, None)
            ]
        );
    }

    #[test]
    fn what_came_back_is_healthy_and_what_is_left_is_open() {
        let totals =
            Totals { in_use: 10 * MIB, peak: 100 * MIB, rss: 20 * MIB, ..Totals::default() };
        assert_eq!(explained(&process(totals)).verdict, Verdict::Healthy);
        let totals = Totals { peak: 11 * MIB, ..totals };
        let e = explained(&process(totals));
        assert_eq!((e.verdict, e.sure), (Verdict::Unknown, Sure::Open));
        assert!(e.text.contains("load (app.py:7)"), "{}", e.text);
    }

    #[test]
    fn growth_is_meant_only_of_what_goes_on() {
        let totals =
            Totals { in_use: 90 * MIB, peak: 90 * MIB, rss: 99 * MIB, ..Totals::default() };
        let mut process = process(totals);
        process.timeline.points = (0..100)
            .map(|i| Point { time: i * 1_000_000_000, in_use: i * MIB, ..Point::default() })
            .collect();
        let e = explained(&process);
        assert_eq!((e.verdict, e.reason), (Verdict::Referenced, "growth"));
        assert!(e.text.contains("50.0 MiB") && e.text.contains("load"), "{}", e.text);
        process.state = State::Exited;
        assert_eq!(explained(&process).verdict, Verdict::Unknown);
        process.state = State::Running;
        for point in &mut process.timeline.points {
            point.in_use = point.in_use % (20 * MIB) + 40 * MIB;
        }
        assert_eq!(explained(&process).verdict, Verdict::Unknown);
    }
}
