//! Footnotes of a table, with `--explain`: where what a line freed is.

use std::fmt::Write;

use strandline_census::Class;
use strandline_explain::Part;

use super::{mib, printable, shorten, wrapped};
use crate::model::{FunctionTable, Line, LineLook};

/// A line is worth a footnote if it stranded or freed this much, bytes.
const LEAST: i64 = 1 << 20;
/// Parts below this are put together, bytes.
const SMALL: u64 = 64 << 10;
/// Columns.
const WIDTH: usize = 110;

/// True if the line has a footnote.
pub(super) fn is_shown(l: &Line) -> bool {
    l.account.as_ref().is_some_and(|look| {
        let a = &look.account;
        a.stranded_bytes >= LEAST || a.asked_bytes as i64 >= LEAST
    })
}

/// Appends the footnotes of a table.
pub(super) fn render(out: &mut String, f: &FunctionTable) {
    let lines = f.lines.iter().filter(|l| is_shown(l));
    for (i, line) in lines.enumerate() {
        if let Some(look) = &line.account {
            note(out, i + 1, f, line, look);
        }
    }
}

fn note(out: &mut String, number: usize, f: &FunctionTable, line: &Line, look: &LineLook) {
    let a = &look.account;
    let source = line.source.as_deref().unwrap_or("").trim();
    let source = shorten(&printable(source.split('#').next().unwrap_or("").trim()), 40);
    let reused = match a.reused_bytes {
        0 => String::new(),
        bytes => format!(", used again by the line itself {}", mib(bytes as i128)),
    };
    let freed = match a.reused_bytes {
        0 => a.freed_bytes.max(0) as u64,
        _ => a.asked_bytes,
    };
    let _ = writeln!(
        out,
        "[{number}] line {}: {source}    freed {}: returned {}, stranded {}{reused}",
        line.line,
        mib(freed.into()),
        mib(a.returned_bytes.into()),
        mib(a.stranded_bytes.into()),
    );
    parts(out, &a.parts);
    if look.missed_bytes > LEAST as u64 {
        row(
            out,
            "",
            &format!(
            "(lines that were not looked at moved {} since the look that this is compared with)",
            mib(look.missed_bytes.into())
        ),
        );
    }
    if a.stranded_bytes >= LEAST {
        row(out, "", advice(&a.parts));
    }
    if let Some(bytes) = look.garbage_bytes.filter(|&bytes| bytes >= LEAST as u64) {
        let text =
            "are garbage: objects that refer to one another and that nothing else can reach. \
                    They wait for the collector (gc.collect() frees them)";
        row(out, &mib(bytes.into()), text);
    }
    alive(out, f, look);
    out.push('\n');
}

fn row(out: &mut String, bytes: &str, text: &str) {
    let head = format!("{bytes:>18}  ");
    let _ = writeln!(out, "{head}{}", wrapped(text, head.len(), WIDTH).trim_start());
}

fn parts(out: &mut String, parts: &[Part]) {
    let (large, small): (Vec<&Part>, Vec<&Part>) =
        parts.iter().partition(|part| part.bytes.unsigned_abs() >= SMALL);
    for part in large {
        row(out, &mib(part.bytes.into()), &printable(&part.text));
    }
    let rest: i64 = small.iter().map(|part| part.bytes).sum();
    if rest != 0 {
        row(out, &mib(rest.into()), "the rest");
    }
}

/// What gives the largest part back.
fn advice(parts: &[Part]) -> &'static str {
    let is = |part: &Part, k: Class| part.name == k.name();
    match parts.first() {
        Some(p) if is(p, Class::FreeLists) => {
            "New ints and floats will use it again. gc.collect() gives it to malloc, and \
             malloc_trim(0) to the system (see strandline remedies)."
        }
        Some(p) if is(p, Class::MallocBins) || is(p, Class::MallocTop) => {
            "The next blocks of malloc will use it again. malloc_trim(0) gives it back, or a fixed \
             MALLOC_TRIM_THRESHOLD_ from the start (see strandline remedies)."
        }
        Some(p) if is(p, Class::FreePools) => {
            "The next small objects, of any size, will use it again. To give it back: allocate what \
             stays where nothing temporary is allocated, or strandline.trim() from 3.10 on (see \
             strandline remedies)."
        }
        Some(p) if is(p, Class::FreeBlocks) => {
            "The next objects of that size will use it again. To give it back: allocate what stays \
             before or after what goes, or copy it afterwards (see strandline remedies)."
        }
        _ => "It will be used again (see strandline remedies).",
    }
}

/// What the line didn't free since somebody still refers to it.
fn alive(out: &mut String, f: &FunctionTable, look: &LineLook) {
    for other in &look.alive {
        let source =
            f.lines.iter().find(|l| l.line == other.line).and_then(|l| l.source.as_deref());
        let source =
            shorten(&printable(source.unwrap_or("").split('#').next().unwrap_or("").trim()), 40);
        row(
            out,
            &mib(other.in_use_bytes.into()),
            &format!(
                "that line {} ({source}) asked for are still in use: somebody refers to it",
                other.line
            ),
        );
    }
    if look.alive.is_empty() {
        return;
    }
    for h in look.holders.iter().take(2) {
        let types: Vec<_> = h
            .types
            .iter()
            .filter(|t| t.count > 1)
            .take(2)
            .map(|t| format!("{} {}", t.count, t.name))
            .collect();
        if types.is_empty() {
            continue;
        }
        row(
            out,
            "",
            &printable(&format!(
                "still referenced, not freed: {} by {} ({}), {}",
                types.join(", "),
                h.path,
                h.type_name,
                mib(h.bytes.into())
            )),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Alive;
    use strandline_explain::Account;

    fn part(k: Class, bytes: i64, text: &str) -> Part {
        Part { name: k.name(), bytes, text: text.to_owned() }
    }

    #[test]
    fn a_footnote_says_where_it_is() {
        let account = Account {
            freed_bytes: 38 << 20,
            asked_bytes: 36 << 20,
            reused_bytes: 0,
            returned_bytes: 8 << 20,
            rss_change_bytes: -(8 << 20),
            stranded_bytes: 30 << 20,
            other_bytes: 0,
            parts: vec![
                part(
                    Class::FreeBlocks,
                    30 << 20,
                    "free blocks in 5,840 pools that live objects keep open",
                ),
                part(Class::MallocTop, 1024, "the free end"),
                part(Class::FreeLists, -1024, "dead objects"),
            ],
        };
        let look = LineLook {
            pid: 1,
            file: "app.py".to_owned(),
            first_line: 1,
            line: 8,
            account,
            missed_bytes: 0,
            alive: vec![Alive { line: 7, in_use_bytes: 4 << 20 }],
            garbage_bytes: Some(0),
            holders: Vec::new(),
        };
        let line = |number, source: &str, account| Line {
            line: number,
            source: Some(source.to_owned()),
            account,
            ..Line::default()
        };
        let table = FunctionTable {
            file: "app.py".to_owned(),
            path: None,
            name: "f".to_owned(),
            first_line: 1,
            process: 0,
            calls: 1,
            lines: vec![line(7, "    y = make()  # why", None), line(8, "    del x", Some(look))],
        };
        let mut out = String::new();
        render(&mut out, &table);
        let expected = "\
[1] line 8: del x    freed 38.000 MiB: returned 8.000 MiB, stranded 30.000 MiB
        30.000 MiB  free blocks in 5,840 pools that live objects keep open
                    The next objects of that size will use it again. To give it back: allocate what stays
                    before or after what goes, or copy it afterwards (see strandline remedies).
         4.000 MiB  that line 7 (y = make()) asked for are still in use: somebody refers to it

";
        assert_eq!(out, expected);
    }
}
