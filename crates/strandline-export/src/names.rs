//! What things are called in every format.

use std::borrow::Cow;
use std::fmt::Write;

use strandline_profile::{Domain, Process, Thread};

use crate::tree::Place;

/// What a call path is called of which nothing is known.
pub const UNKNOWN: &str = "[unknown]";
/// What CPython's small-object allocator keeps and no block is in.
pub const STRANDED_ARENAS: &str = "[stranded: kept by CPython's allocator]";
/// What the C library keeps and no block is in.
pub const STRANDED_HEAP: &str = "[stranded: kept by malloc]";

/// A word for an allocator.
pub fn domain(domain: Domain) -> &'static str {
    match domain {
        Domain::Object => "object",
        Domain::Mem => "mem",
        Domain::Raw => "raw",
        Domain::Malloc => "malloc",
        Domain::Mmap => "mmap",
    }
}

/// A thread's name; without one its id.
pub fn thread(thread: &Thread) -> Cow<'_, str> {
    match (thread.name.as_str(), thread.tid) {
        ("", 0) => Cow::Borrowed(UNKNOWN),
        ("", tid) => Cow::Owned(format!("thread {tid}")),
        (name, _) => Cow::Borrowed(name),
    }
}

/// A process in a few words: `process 4711 (app.py)`.
pub fn process(process: &Process) -> String {
    match program(&process.command) {
        "" => format!("process {}", process.pid),
        program => format!("process {} ({program})", process.pid),
    }
}

/// The word of a command line that tells programs apart: the script or module rather than the
/// interpreter.
pub fn program(command: &[String]) -> &str {
    let first = command.first().map_or("", |w| base(w));
    if !first.starts_with("python") {
        return first;
    }
    let mut words = command.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-m" => return words.next().unwrap_or(first),
            // These take a value of their own.
            "-W" | "-X" => {
                words.next();
            }
            "-c" | "-" => return first,
            _ if word.starts_with('-') => {}
            _ => return base(word),
        }
    }
    first
}

/// The last part of a file's path.
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `function (file:line)`, with as much as is known.
pub fn place(place: &Place<'_>) -> String {
    with_file(place, place.file)
}

/// `function (file:line)` with the last part of the file's path only.
pub fn place_short(place: &Place<'_>) -> String {
    with_file(place, base(place.file))
}

fn with_file(place: &Place<'_>, file: &str) -> String {
    let mut text = place.function.to_string();
    // Writing to a String does not fail.
    let _ = match (file, place.line) {
        ("", _) => Ok(()),
        (file, 0) => write!(text, " ({file})"),
        (file, line) => write!(text, " ({file}:{line})"),
    };
    text
}

/// A text that may stand in a folded stack: nothing in it separates frames or lines.
pub fn folded(text: &str) -> String {
    let safe = |c: char| match c {
        ';' => ':',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    #[test]
    fn programs() {
        for (command, expected) in [
            ("/usr/bin/python3 -X dev -u /srv/app.py --port 80", "app.py"),
            ("python3.11 -m http.server", "http.server"),
            ("python3 -c pass", "python3"),
            ("python3", "python3"),
            ("/opt/venv/bin/gunicorn app:app", "gunicorn"),
            ("", ""),
        ] {
            assert_eq!(program(&words(command)), expected);
        }
        assert_eq!(program(&[]), "");
    }

    #[test]
    fn places() {
        let place = |file, line| Place { function: "f".into(), file, line, ..Place::default() };
        assert_eq!(super::place(&place("/a/b.py", 3)), "f (/a/b.py:3)");
        assert_eq!(place_short(&place("/a/b.py", 3)), "f (b.py:3)");
        assert_eq!(super::place(&place("/lib/x.so", 0)), "f (/lib/x.so)");
        assert_eq!(super::place(&place("", 3)), "f");
        assert_eq!(folded("a;b\nc\t\"d\""), "a:b c \"d\"");
    }

    #[test]
    fn threads() {
        let thread = |name: &str, tid| Thread { name: name.into(), tid, allocations: 0 };
        assert_eq!(super::thread(&thread("Main", 7)), "Main");
        assert_eq!(super::thread(&thread("", 7)), "thread 7");
        assert_eq!(super::thread(&thread("", 0)), UNKNOWN);
    }
}
