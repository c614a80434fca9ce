//! The verdict: which of the causes the user should look at, what that rests on, and how sure it
//! is.

use strandline_census::{Census, HolderReport};

use crate::causes::{
    causes, class, collector_keeps_up, garbage, live, looks_unbounded, native, native_series,
    not_python, usual_live, was_replaced, what_it_holds,
};
use crate::growth::{trend, Part, Trend};
use crate::mib;
use crate::model::{Explanation, PinReport, Sure, Verdict, SCHEMA};
use crate::remedies::remedies;
use strandline_census::Class;

/// What is less than this is no reason to worry, bytes, and so is what is less than one part in so
/// many of RSS.
const LEAST: (u64, u64) = (2 << 20, 8);
/// What the interpreter's own C code holds of malloc at the start, about: bytes.
const USUAL_NATIVE: u64 = 4 << 20;
/// A process whose peak was higher than RSS by this many bytes gave memory back.
const CAME_BACK: u64 = 8 << 20;

/// What is said of a process.
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) reason: &'static str,
    pub(crate) sure: Sure,
    pub(crate) text: String,
    pub(crate) rests_on: Vec<String>,
}

/// Explains a process from looks at it, the oldest first; `None` without any.
pub fn explain(looks: &[Census]) -> Option<Explanation> {
    let last = looks.last()?;
    let mut judged = judge(looks, last);
    let doubtful = last.doubt_count > 0 || last.unnamed_bytes * 20 > last.rss_bytes;
    if doubtful && judged.sure == Sure::Measured {
        judged.sure = Sure::Likely;
        judged.rests_on.push("part of what was read can't be right or has no name".to_owned());
    }
    Some(Explanation {
        schema: SCHEMA,
        pid: last.pid,
        command_line: last.command_line.clone(),
        interpreters: last.interpreters.iter().map(|i| i.version.clone()).collect(),
        looks: looks.len(),
        paused_ns: looks.iter().map(|c| c.paused_ns).sum(),
        rss_bytes: last.rss_bytes,
        rss_looks_bytes: looks.iter().map(|c| c.rss_bytes).collect(),
        peak_rss_bytes: last.peak_rss_bytes,
        verdict: judged.verdict,
        reason: judged.reason,
        sure: judged.sure,
        text: judged.text,
        rests_on: judged.rests_on,
        causes: causes(last, judged.verdict == Verdict::Referenced),
        pins: pins(last),
        pins_by_line: Vec::new(),
        holders: last.holders.clone(),
        remedies: remedies(last),
        doubts: last.doubts.clone(),
    })
}

fn pins(c: &Census) -> Vec<PinReport> {
    let mut pins: Vec<_> =
        c.pins.iter().filter(|p| p.held_bytes > 0).map(PinReport::of_arena).collect();
    pins.extend(c.heaps.iter().filter(|h| h.free_bytes > 0).filter_map(|h| {
        let last = h.last.as_ref()?;
        Some(PinReport {
            what: "heap",
            address: h.address,
            held_bytes: h.free_bytes,
            type_name: last.type_name.clone(),
            count: 1,
            bytes: last.bytes,
            path: last.path.clone(),
        })
    }));
    pins.sort_by(|a, b| b.held_bytes.cmp(&a.held_bytes).then_with(|| a.address.cmp(&b.address)));
    pins
}

fn judge(looks: &[Census], last: &Census) -> Judged {
    // One look may fall into a collection, whose rings aren't closed then.
    let keeps_up = looks.iter().any(collector_keeps_up) || garbage_falls(looks);
    let trend = match trend(looks) {
        // It will shrink again.
        Trend::Grows(_, Part::Garbage) if keeps_up => Trend::Unknown,
        Trend::Grows(bytes, part) => return grows(looks, last, bytes, part),
        trend => trend,
    };
    let least = LEAST.0.max(last.rss_bytes / LEAST.1);
    let parts = [
        (Part::Garbage, if keeps_up { 0 } else { garbage(last) }),
        (Part::Freed, last.stranded_bytes),
        (Part::Native, native(last).saturating_sub(USUAL_NATIVE)),
        (Part::NotPython, not_python(last)),
        (Part::Live, live(last).saturating_sub(usual_live(last))),
    ];
    let most = parts.into_iter().rev().max_by_key(|&(_, bytes)| bytes);
    let mut judged = match most.filter(|&(_, bytes)| bytes >= least) {
        Some((Part::Garbage, bytes)) => of_garbage(bytes),
        Some((Part::Freed, _)) => retention(last),
        Some((Part::Native, _)) => of_native(last),
        Some((Part::NotPython, _)) => outside(last),
        Some((Part::Live, _)) => in_use(looks, last, trend),
        None => nothing(last),
    };
    if keeps_up && garbage(last) >= least {
        judged.rests_on.push(format!(
            "{} are garbage, of objects that became old first: the collector is on, and takes them \
             at its next full collection",
            mib(garbage(last))
        ));
    }
    match trend {
        Trend::Steady => judged
            .rests_on
            .push(format!("{} looks: RSS did not grow from each to the next", looks.len())),
        Trend::Idle => judged.rests_on.push(
            "the process did nothing between the looks: they say no more than one".to_owned(),
        ),
        Trend::Unknown | Trend::Grows(..) => {}
    }
    judged
}

/// Whether there was less garbage at some look than before: somebody collects it.
fn garbage_falls(looks: &[Census]) -> bool {
    looks.windows(2).any(|pair| garbage(&pair[1]) < garbage(&pair[0]) / 10 * 9)
}

fn share(bytes: u64, c: &Census) -> String {
    format!("{:.0} %", bytes as f64 * 100.0 / c.rss_bytes.max(1) as f64)
}

fn of_garbage(bytes: u64) -> Judged {
    Judged {
        verdict: Verdict::Garbage,
        reason: "uncollected_cycles",
        sure: Sure::Measured,
        text: format!(
            "{} are garbage that waits for the collector: objects that refer to one another, and \
             that nothing else can reach. gc.collect() frees them; gc.enable() or a lower \
             gc.set_threshold() keeps it from coming again.",
            mib(bytes)
        ),
        rests_on: vec![
            "all that can be reached from modules, frames, stacks, static memory and C code's \
             memory was marked; these objects can't, and have no references but one another's"
                .to_owned(),
        ],
    }
}

/// The freed part, by who keeps it.
fn retention(c: &Census) -> Judged {
    let cause = causes(c, false).into_iter().find(|cause| cause.kind == "freed");
    let (reason, why) = cause.map_or(("freed", String::new()), |cause| (cause.name, cause.text));
    let best = remedies(c)
        .into_iter()
        .find(|r| r.name != "move-pins" && r.predicted_bytes.is_some_and(|bytes| bytes >= 1 << 20));
    let help = match best {
        Some(r) => format!(
            " {} would bring back {}{}.",
            r.name,
            if r.is_estimate { "about " } else { "" },
            mib(r.predicted_bytes.unwrap_or(0).unsigned_abs())
        ),
        None => " No remedy that is known brings it back while the program runs as it does; the \
                 next objects will use it again."
            .to_owned(),
    };
    Judged {
        verdict: Verdict::AllocatorRetention,
        reason,
        sure: Sure::Measured,
        text: format!(
            "{} ({} of RSS) were freed, and allocators keep them. Most of it: {why}.{help}",
            mib(c.stranded_bytes),
            share(c.stranded_bytes, c),
        ),
        rests_on: vec![
            "every block and chunk was walked, and is free in its allocator's own lists".to_owned(),
        ],
    }
}

fn of_native(c: &Census) -> Judged {
    let bytes = native(c);
    let series = native_series(c);
    let what = match series {
        Some(s) => format!(
            " {} of it are {} blocks of {} bytes, which look like one and the same thing allocated again and again.",
            mib(s.bytes),
            crate::count(s.count),
            crate::count(s.chunk_bytes),
        ),
        None => String::new(),
    };
    let unnamed = class(c, Class::Unnamed);
    let reason = match series {
        Some(_) => "native_leak",
        None if unnamed * 2 > bytes => "unnamed",
        None => "native_memory",
    };
    let others: Vec<_> = c.other_allocators.iter().map(|o| o.name.as_str()).collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(" {} is loaded.", others.join(", ")),
    };
    Judged {
        verdict: Verdict::Native,
        reason,
        sure: if reason == "unnamed" { Sure::Open } else { Sure::Likely },
        text: format!(
            "{} ({} of RSS) are held by C code: no Python object points to them.{what}{others} \
             gc and malloc_trim give nothing of it back.",
            mib(bytes),
            share(bytes, c),
        ),
        rests_on: vec![
            "the chunks are in use in malloc, and no live Python object has a pointer to them"
                .to_owned(),
        ],
    }
}

fn outside(c: &Census) -> Judged {
    let bytes = not_python(c);
    let files = class(c, Class::Files);
    let file = c.mappings.iter().find(|m| m.class == Class::Files.name() && files * 2 > bytes);
    let (reason, what) = match file {
        Some(file) => ("file_mapping", format!(" Most of it: {}.", file.path)),
        None => ("shared_memory", String::new()),
    };
    Judged {
        verdict: Verdict::NotPython,
        reason,
        sure: Sure::Measured,
        text: format!(
            "{} ({} of RSS) are mapped files or shared memory, not Python's.{what} Pages of files \
             are the kernel's cache: it takes them back when memory gets short.",
            mib(bytes),
            share(bytes, c),
        ),
        rests_on: vec!["the kernel's list of mappings, page by page".to_owned()],
    }
}

/// The object that holds at least half of what is live.
fn main_holder(c: &Census) -> Option<&HolderReport> {
    c.holders.iter().find(|h| h.bytes * 2 >= live(c))
}

/// The same object in another look.
fn same<'c>(c: &'c Census, h: &HolderReport) -> Option<&'c HolderReport> {
    c.holders.iter().find(|other| other.address == h.address && other.type_name == h.type_name)
}

/// Whether an object had more items at each look than at the one before. Of what isn't a dict or a
/// list, what would go with it is counted, a little of which is always held by others as well.
fn held_more_each_time(looks: &[Census], h: &HolderReport) -> bool {
    const LITTLE: u64 = 100;
    let found: Vec<_> = looks.iter().filter_map(|c| same(c, h)).collect();
    let rises = |pair: &[&HolderReport]| match (pair[0].items, pair[1].items) {
        (Some(before), Some(after)) => after > before,
        _ => pair[1].count > pair[0].count + pair[0].count / LITTLE,
    };
    found.len() > 1 && found.windows(2).all(rises)
}

fn in_use(looks: &[Census], c: &Census, trend: Trend) -> Judged {
    let bytes = live(c);
    let holder = main_holder(c);
    let who = holder.map_or_else(String::new, |h| {
        format!(" {} ({}) holds {} of it: {}.", h.path, h.type_name, mib(h.bytes), what_it_holds(h))
    });
    let start = format!(
        "{} ({} of RSS) are in use by live Python objects.{who}",
        mib(bytes),
        share(bytes, c)
    );
    let fills_up = |h: &HolderReport| looks_unbounded(h) && held_more_each_time(looks, h);
    if trend == Trend::Steady && !holder.is_some_and(fills_up) {
        return Judged {
            verdict: Verdict::Healthy,
            reason: "in_use",
            sure: Sure::Likely,
            text: format!("{start} It doesn't grow."),
            rests_on: vec![
                "who refers to the objects was followed from modules and frames".to_owned()
            ],
        };
    }
    match holder {
        Some(h) if looks_unbounded(h) => Judged {
            verdict: Verdict::Referenced,
            reason: "leak",
            sure: Sure::Likely,
            text: format!(
                "{start} It stays there: {} works with it, and nothing that does takes anything \
                 out: a leak, or a cache without a bound. Remove what isn't needed any more, or bound it.",
                h.functions.join(", ")
            ),
            rests_on: vec![
                format!("who would keep these objects alive without {}: nobody", h.path),
                "the names and instructions of all functions in the process".to_owned(),
                "one look can't see growth: --every 10s --times 3 does".to_owned(),
            ],
        },
        Some(h) if was_replaced(h) => Judged {
            verdict: Verdict::Healthy,
            reason: "plateau",
            sure: Sure::Likely,
            text: format!("{start} Its values were replaced again and again, in memory that was used before."),
            rests_on: vec![format!(
                "{:.0} % of its values stand in memory in the order in which they came: half would \
                 be chance, nearly all if nothing was ever replaced",
                h.in_order.unwrap_or(0.0) * 100.0
            )],
        },
        _ => Judged {
            verdict: Verdict::Unknown,
            reason: "in_use",
            sure: Sure::Open,
            text: format!(
                "{start} One look can't tell whether that is needed or grows: look again with \
                 --every 10s --times 3."
            ),
            rests_on: vec!["who refers to the objects was followed from modules and frames".to_owned()],
        },
    }
}

fn nothing(c: &Census) -> Judged {
    let back = c.peak_rss_bytes.map_or(0, |peak| peak.saturating_sub(c.rss_bytes));
    let (reason, text) = if back >= CAME_BACK.max(c.rss_bytes / 4) {
        (
            "returned",
            format!(
                "Nothing is wrong: RSS was {} higher at its peak, and that went back to the system.",
                mib(back)
            ),
        )
    } else {
        (
            "small",
            "Nothing is wrong: most of it is the interpreter, libraries and imported code."
                .to_owned(),
        )
    };
    Judged {
        verdict: Verdict::Healthy,
        reason,
        sure: Sure::Measured,
        text,
        rests_on: vec!["every resident byte was sorted by what it is".to_owned()],
    }
}

fn grows(looks: &[Census], last: &Census, bytes: u64, part: Part) -> Judged {
    let mut judged = match part {
        Part::Garbage => of_garbage(garbage(last)),
        Part::Freed => retention(last),
        Part::Native => of_native(last),
        Part::NotPython => outside(last),
        Part::Live => live_grows(looks, last),
    };
    judged.text = format!("RSS grew by {} over {} looks. {}", mib(bytes), looks.len(), judged.text);
    judged.rests_on.push(format!("{} looks, each higher than the one before", looks.len()));
    judged
}

/// The type whose objects grew most, with the bytes.
fn grown_type(first: &Census, last: &Census) -> Option<(String, u64, u64)> {
    let before = |name: &str| {
        first.types.iter().find(|t| t.name == name).map_or((0, 0), |t| (t.count, t.bytes))
    };
    let grown = last.types.iter().map(|t| {
        let (count, bytes) = before(&t.name);
        (t.name.clone(), t.count.saturating_sub(count), t.bytes.saturating_sub(bytes))
    });
    grown.max_by_key(|(_, _, bytes)| *bytes).filter(|(_, _, bytes)| *bytes > 0)
}

fn live_grows(looks: &[Census], last: &Census) -> Judged {
    let first = looks.first().unwrap_or(last);
    let what = grown_type(first, last).map_or_else(String::new, |(name, more, bytes)| {
        format!("{} more {name} with {} more", crate::count(more), mib(bytes))
    });
    let growth = live(last).saturating_sub(live(first));
    let before = |h: &HolderReport| same(first, h).map_or(0, |other| other.bytes);
    // Another object under the same name: what the one before held went with it.
    let was_bound_anew = |h: &HolderReport| {
        looks.iter().flat_map(|c| &c.holders).any(|o| o.path == h.path && o.address != h.address)
    };
    let grown = |h: &&HolderReport| h.bytes.saturating_sub(before(h)) * 2 >= growth;
    let holder = last.holders.iter().find(grown);
    let rests_on = vec!["the same container held more at each look".to_owned()];
    match holder {
        Some(h) if h.is_lasting && !h.takes_out && !was_bound_anew(h) => Judged {
            verdict: Verdict::Referenced,
            reason: "leak",
            sure: if looks.len() > 2 || looks_unbounded(h) { Sure::Likely } else { Sure::Open },
            text: format!(
                "It grows because objects are still referenced: {what}; {} ({}) holds them, and \
                 stays: a leak, or a cache without a bound.",
                h.path, h.type_name
            ),
            rests_on,
        },
        Some(h) => {
            let why = match h.is_lasting {
                true if was_bound_anew(h) => {
                    "another object stood under that name before, and went with all it held"
                }
                true => {
                    "functions that work with it take things out as well: it may find its bound"
                }
                false => "a function that runs works with it: it may be at building something up",
            };
            Judged {
                verdict: Verdict::Unknown,
                reason: "in_use",
                sure: Sure::Open,
                text: format!("{what}; {} ({}) holds them; {why}.", h.path, h.type_name),
                rests_on,
            }
        }
        None => Judged {
            verdict: Verdict::Unknown,
            reason: "in_use",
            sure: Sure::Open,
            text: format!("{what}; no single object holds most of them."),
            rests_on: vec!["live objects by type at each look".to_owned()],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_census::{ClassReport, CollectorReport, GarbageReport};

    fn holder(items: u64) -> HolderReport {
        HolderReport {
            path: "app.TABLE".to_owned(),
            address: 0x1000,
            type_name: "dict".to_owned(),
            bytes: 30 << 20,
            count: 1000,
            items: Some(items),
            is_lasting: true,
            in_order: Some(1.0),
            functions: vec!["fill() in app.py".to_owned()],
            ..HolderReport::default()
        }
    }

    fn look(rss: u64, objects: u64, cpu_ms: u64, holders: Vec<HolderReport>) -> Census {
        let class = ClassReport {
            name: Class::Objects.name().to_owned(),
            bytes: objects << 20,
            text: String::new(),
        };
        let (rss_bytes, cpu_ms) = (rss << 20, Some(cpu_ms));
        Census { rss_bytes, classes: vec![class], cpu_ms, holders, ..Census::default() }
    }

    fn verdict(looks: &[Census]) -> (Verdict, &'static str) {
        let said = explain(looks).unwrap();
        (said.verdict, said.reason)
    }

    #[test]
    fn a_table_that_is_full_is_no_leak() {
        let full = |cpu_ms| look(50, 32, cpu_ms, vec![holder(500)]);
        let fuller = look(50, 32, 9, vec![holder(501)]);
        assert_eq!(verdict(&[full(1)]), (Verdict::Referenced, "leak"));
        assert_eq!(verdict(&[full(1), full(9)]), (Verdict::Healthy, "in_use"));
        // It did nothing meanwhile.
        assert_eq!(verdict(&[full(1), full(1)]), (Verdict::Referenced, "leak"));
        // Slowly, so that RSS doesn't show it yet.
        assert_eq!(verdict(&[full(1), fuller]), (Verdict::Referenced, "leak"));
    }

    #[test]
    fn what_is_bound_anew_does_not_leak() {
        let of = |rss, address| {
            let bytes = rss << 20;
            let h = HolderReport { address, bytes, ..holder(500) };
            look(rss + 20, rss, rss, vec![h])
        };
        let grows = [of(30, 0x1000), of(40, 0x1000), of(50, 0x1000)];
        assert_eq!(verdict(&grows), (Verdict::Referenced, "leak"));
        let replaced = [of(30, 0x1000), of(40, 0x2000), of(50, 0x3000)];
        assert_eq!(verdict(&replaced), (Verdict::Unknown, "in_use"));
    }

    #[test]
    fn garbage_is_left_to_a_collector_that_runs() {
        let of = |collector| {
            let garbage =
                GarbageReport { bytes: 30 << 20, count: 100_000, collector, ..Default::default() };
            Census { garbage: Some(garbage), ..look(50, 32, 1, vec![]) }
        };
        let young = |count, threshold| Some(CollectorReport { count, threshold, at_work: false });
        assert_eq!(verdict(&[of(None)]).0, Verdict::Garbage);
        assert_eq!(verdict(&[of(young(650, 700))]).0, Verdict::Healthy);
        // It is off, never looks, or hardly ever.
        assert_eq!(verdict(&[of(young(200_000, 700))]).0, Verdict::Garbage);
        assert_eq!(verdict(&[of(young(0, 0))]).0, Verdict::Garbage);
        assert_eq!(verdict(&[of(young(90_000, 1_000_000))]).0, Verdict::Garbage);
    }
}
