//! Places and call paths by name.

use std::path::Path;

use strandline_profile::Domain;
use strandline_report::text::{printable, shown_path};

use super::words::{columns, fit_name};
use super::Look;
use crate::place::{Key, Place};

/// What was allocated while no code was known to run.
pub(super) const OUTSIDE: &str = "outside Python code (before start-up, C threads)";

/// `load (app/cache.py:42)`
pub(super) fn call(look: &Look, place: &Place) -> String {
    if place.is_unknown() {
        return "unknown code".to_owned();
    }
    let at = position(look, place);
    match function(place) {
        None => at,
        Some(function) if at.is_empty() => function,
        Some(function) => format!("{function} ({at})"),
    }
}

/// `app/cache.py:42`; what has no line by its function.
pub(super) fn line(look: &Look, place: &Place) -> String {
    match place.line {
        _ if place.is_unknown() => OUTSIDE.to_owned(),
        0 => call(look, place),
        _ => position(look, place),
    }
}

fn function(place: &Place) -> Option<String> {
    match (place.function, place.address) {
        ("", 0) => None,
        ("", address) => Some(format!("{address:#x}")),
        (function, _) => Some(printable(function)),
    }
}

/// `app/cache.py:42`, `libfoo.so`
fn position(look: &Look, place: &Place) -> String {
    let file = file(look, place);
    match place.line {
        0 => file,
        line => format!("{file}:{line}"),
    }
}

fn file(look: &Look, place: &Place) -> String {
    // Where a library lies says nothing about what it does.
    let name = Path::new(place.file).file_name().and_then(|name| name.to_str());
    match name.filter(|_| place.native) {
        Some(name) => printable(name),
        None => short_path(&shown_path(place.file, look.cwd.as_deref())).to_owned(),
    }
}

/// Where a library's modules begin: what stands before is the same for all of them.
const LIBRARIES: [&str; 3] = ["/site-packages/", "/dist-packages/", "/lib/python"];

/// A library's file from the library on: `json/decoder.py`.
fn short_path(path: &str) -> &str {
    LIBRARIES
        .iter()
        .find_map(|start| {
            let (_, rest) = path.rsplit_once(start)?;
            // Behind /lib/python comes the version, as a rule.
            if start.ends_with('/') {
                Some(rest)
            } else {
                rest.split_once('/').map(|(_, rest)| rest)
            }
        })
        .filter(|rest| !rest.is_empty())
        .unwrap_or(path)
}

/// True if the file is a library's, not the program's own.
pub(super) fn is_library(file: &str) -> bool {
    LIBRARIES.iter().any(|start| file.contains(start))
}

/// Name of what a row stands for. A call path by its innermost place.
pub(super) fn key(look: &Look, key: &Key) -> String {
    match key {
        Key::Path(path) => {
            path.outwards().next().map_or_else(|| OUTSIDE.to_owned(), |place| call(look, &place))
        }
        Key::Line(place) => line(look, place),
        Key::Function(place) if place.is_unknown() => OUTSIDE.to_owned(),
        Key::Function(place) => call(look, &Place { line: 0, ..*place }),
        Key::File(place) if place.file.is_empty() => OUTSIDE.to_owned(),
        Key::File(place) => file(look, place),
        Key::Thread { name, tid, pid } => thread(Some(name), Some(*tid), *pid),
        Key::Domain(of) => domain(*of).to_owned(),
        Key::Type(name) => printable(name),
    }
}

/// `loader (thread 4712 of 4711)`
pub(super) fn thread(name: Option<&str>, tid: Option<u32>, pid: u32) -> String {
    let name = name.filter(|name| !name.is_empty()).map(printable);
    match (name, tid.filter(|&tid| tid != 0)) {
        (Some(name), Some(tid)) if tid == pid => format!("{name} (process {pid})"),
        (Some(name), Some(tid)) => format!("{name} (thread {tid} of {pid})"),
        (Some(name), None) => format!("{name} (process {pid})"),
        (None, Some(tid)) => format!("thread {tid} of process {pid}"),
        (None, None) => format!("threads that can't be told apart (process {pid})"),
    }
}

/// An allocator in words.
pub(super) fn domain(domain: Domain) -> &'static str {
    match domain {
        Domain::Object => "Python's objects",
        Domain::Mem => "buffers of Python's objects (lists, dicts)",
        Domain::Raw => "the interpreter itself",
        Domain::Malloc => "malloc, called by C code",
        Domain::Mmap => "mmap, whole pages from the system",
    }
}

/// Lines that callers may take.
const CALLER_LINES: usize = 3;

/// The callers, the nearest first, in some lines of `width` columns: `called by main (app.py:9) ←
/// …`. Empty for a path without callers.
pub(super) fn callers<'a>(
    look: &Look,
    places: impl Iterator<Item = Place<'a>>,
    width: usize,
) -> String {
    let chain =
        outwards(look, places.skip(1), (width * CALLER_LINES).saturating_sub("called by ".len()));
    if chain.is_empty() {
        chain
    } else {
        format!("called by {chain}")
    }
}

/// Names of calls; one that calls itself is named once, with the number of times.
fn names<'a>(look: &Look, places: impl Iterator<Item = Place<'a>>) -> Vec<String> {
    let mut calls: Vec<(Place, usize)> = Vec::new();
    for place in places {
        match calls.last_mut() {
            Some((last, times)) if *last == place => *times += 1,
            _ => calls.push((place, 1)),
        }
    }
    let name = |(place, times): &(Place, usize)| match times {
        1 => call(look, place),
        times => format!("{} ×{times}", call(look, place)),
    };
    calls.iter().map(name).collect()
}

/// Between a call and its caller.
pub(super) const OUT: &str = " ← ";
/// Between a call and what it calls.
const IN: &str = " → ";

/// Calls from the inside out in a line of `width` columns: the first ones, as they say most, and
/// how many more there are.
pub(super) fn outwards<'a>(
    look: &Look,
    places: impl Iterator<Item = Place<'a>>,
    width: usize,
) -> String {
    let names = names(look, places);
    let mut out = String::new();
    for (i, name) in names.iter().enumerate() {
        let left = names.len() - i - 1;
        let end = if left == 0 { String::new() } else { format!("{OUT}{left} more") };
        let room = width.saturating_sub(columns(&out) + columns(&end));
        if i == 0 {
            out = fit_name(name, room);
        } else if columns(OUT) + columns(name) <= room {
            out.push_str(OUT);
            out.push_str(name);
        } else {
            out.push_str(&format!("{OUT}{} more", left + 1));
            break;
        }
    }
    out
}

/// Calls from the outside in, in a line of `width` columns: the first ones and the last one, and
/// how many are between them.
pub(super) fn inwards<'a>(
    look: &Look,
    places: impl Iterator<Item = Place<'a>>,
    width: usize,
) -> String {
    let names = names(look, places);
    let Some((last, before)) = names.split_last() else { return String::new() };
    let mut out = String::new();
    for (i, name) in before.iter().enumerate() {
        let left = before.len() - i;
        // Room is kept for the last one and for how many are left out.
        let more = if left == 1 { 0 } else { columns("99 calls") + columns(IN) };
        let needed = columns(&out) + columns(name) + columns(IN) + more + columns(last);
        if needed > width {
            let word = if left == 1 { "call" } else { "calls" };
            out.push_str(&format!("{left} {word}{IN}"));
            break;
        }
        out.push_str(name);
        out.push_str(IN);
    }
    let room = width.saturating_sub(columns(&out)).max(1);
    out.push_str(&fit_name(last, room));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(function: &'a str, file: &'a str, line: u32) -> Place<'a> {
        Place { function, file, line, ..Place::default() }
    }

    #[test]
    fn a_place_has_a_name() {
        let look = Look { cwd: Some("/srv/app".into()), ..Look::default() };
        assert_eq!(call(&look, &place("f", "/srv/app/a.py", 3)), "f (a.py:3)");
        assert_eq!(call(&look, &place("", "a.py", 0)), "a.py");
        assert_eq!(call(&look, &Place::default()), "unknown code");
        assert_eq!(line(&look, &place("f", "a.py", 3)), "a.py:3");
        assert_eq!(line(&look, &place("f", "a.py", 0)), "f (a.py)");
        let native = Place { native: true, address: 0x1f0, ..place("", "/lib/libz.so.1", 0) };
        assert_eq!(call(&look, &native), "0x1f0 (libz.so.1)");
        assert_eq!(call(&look, &place("a\x1b[2J", "b\n.py", 1)), "a\u{fffd}[2J (b .py:1)");
    }

    #[test]
    fn libraries_files_begin_with_the_library() {
        assert_eq!(short_path("/usr/lib/python3.13/json/decoder.py"), "json/decoder.py");
        assert_eq!(short_path("/v/lib/python3.13/site-packages/a/b.py"), "a/b.py");
        assert_eq!(short_path("/srv/app.py"), "/srv/app.py");
        assert_eq!(short_path("/lib/python"), "/lib/python");
    }

    #[test]
    fn a_chain_says_what_it_leaves_out() {
        let look = Look::default();
        let names: Vec<String> = (0..9).map(|i| format!("f{i}")).collect();
        let places = || names.iter().map(|name| place(name, "a.py", 1));
        let short = inwards(&look, places(), 60);
        assert_eq!(short, "f0 (a.py:1) → f1 (a.py:1) → 6 calls → f8 (a.py:1)");
        assert_eq!(outwards(&look, places(), 36), "f0 (a.py:1) ← f1 (a.py:1) ← 7 more");
        assert_eq!(outwards(&look, places().take(2), 36), "f0 (a.py:1) ← f1 (a.py:1)");
        assert_eq!(inwards(&look, places().take(0), 60), "");
        let again = std::iter::repeat_n(place("f", "a.py", 1), 3);
        assert_eq!(outwards(&look, again, 60), "f (a.py:1) ×3");
        for width in 1..100 {
            let texts = [inwards(&look, places(), width), outwards(&look, places(), width)];
            assert!(texts.iter().all(|text| columns(text) <= width.max(24)), "{width}: {texts:?}");
        }
    }
}
