//! A census as text: one screen first, then as much as is asked for.

use std::fmt::Write;

use strandline_census::{ArenaReport, Census, Class, ClassReport, Group, TypeReport};

use crate::text::{mib, printable, shorten};

/// Columns of a line.
const WIDTH: usize = 100;
/// Cells of a bar.
const BAR: usize = 24;
/// Cells of the map of arenas in one line.
const MAP: usize = 64;
/// Lines of the map.
const MAP_LINES: usize = 3;

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Show {
    /// Types.
    pub types: usize,
    /// Arenas whose holders are named.
    pub pins: usize,
    /// Size classes of the small-object allocator.
    pub sizes: bool,
}

impl Default for Show {
    fn default() -> Self {
        Show { types: 8, pins: 3, sizes: false }
    }
}

/// Rows below this share of the whole are put together.
const SMALL: f64 = 0.002;

fn class(c: &Census, class: Class) -> Option<&ClassReport> {
    c.classes.iter().find(|r| r.name == class.name())
}

fn bytes_of(c: &Census, k: Class) -> u64 {
    class(c, k).map_or(0, |r| r.bytes)
}

fn share(bytes: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        bytes as f64 / whole as f64
    }
}

fn bar(share: f64) -> String {
    let eighths = (share * BAR as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    bar.push_str(rest);
    bar
}

fn row(out: &mut String, indent: &str, text: &str, bytes: u64, whole: u64, with_bar: bool) {
    let share = share(bytes, whole);
    let bar = if with_bar { bar(share) } else { String::new() };
    let text = format!("{indent}{text}");
    let line = format!("{text:<50}{:>14}{:>8.1} %  {bar}", mib(bytes as i128), share * 100.0);
    let _ = writeln!(out, "{}", line.trim_end());
}

fn title(out: &mut String, c: &Census) {
    let what = match c.pid {
        Some(pid) => format!("process {pid}"),
        None => "core file".to_owned(),
    };
    let command = if c.command_line.is_empty() {
        c.executable.clone().unwrap_or_default()
    } else {
        c.command_line.join(" ")
    };
    let _ = writeln!(out, "Census of {what}: {}", shorten(&printable(&command), WIDTH - 30));
    let versions: Vec<_> = c
        .interpreters
        .iter()
        .map(|i| {
            let number = i.version.split(' ').next().unwrap_or_default();
            let more = if i.allocators > 1 {
                format!(" ({} interpreters with memory of their own)", i.allocators)
            } else {
                String::new()
            };
            format!("CPython {number}{more}")
        })
        .collect();
    let found = if versions.is_empty() {
        "no CPython was found in it".to_owned()
    } else {
        versions.join(", ")
    };
    let stood = match c.paused_ns {
        Some(ns) => format!("stood still for {:.0} ms", ns as f64 / 1e6),
        None if c.pid.is_some() => "read while it ran".to_owned(),
        None => "as it was dumped".to_owned(),
    };
    let disk = match c.copied_to_disk {
        true => "; copied to disk, since memory was short",
        false => "",
    };
    let _ = writeln!(out, "{found}; {stood}{disk}\n");
}

fn classes(out: &mut String, c: &Census) {
    let whole = c.rss_bytes;
    let what = if c.kernel_rss_bytes.is_some() { "resident memory (RSS)" } else { "dumped memory" };
    row(out, "", what, whole, whole, false);
    for group in Group::ALL {
        let mut rows: Vec<&ClassReport> = group.classes().filter_map(|k| class(c, k)).collect();
        let bytes = rows.iter().map(|r| r.bytes).sum();
        if bytes == 0 && group != Group::Unnamed {
            continue;
        }
        row(out, "  ", group.text(), bytes, whole, true);
        if rows.len() < 2 {
            continue;
        }
        rows.sort_by_key(|r| std::cmp::Reverse(r.bytes));
        let (large, small): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|r| share(r.bytes, whole) >= SMALL);
        for r in large {
            row(out, "    ", &r.text, r.bytes, whole, false);
        }
        let rest: u64 = small.iter().map(|r| r.bytes).sum();
        if rest > 0 {
            let text = match small.len() {
                1 => small[0].text.clone(),
                n => format!("{n} smaller classes"),
            };
            row(out, "    ", &text, rest, whole, false);
        }
    }
    if let Some(kernel) = c.kernel_rss_bytes.filter(|&k| k != whole) {
        let difference = whole as i128 - kernel as i128;
        let _ = writeln!(out, "  (the kernel's own sum differs by {difference} bytes)");
    }
    for (bytes, text) in [
        (c.copy_on_write_bytes.unwrap_or(0), "of it shared with a parent or child (copy on write)"),
        (c.huge_page_bytes.unwrap_or(0), "of it in huge pages"),
        (c.swapped_bytes, "swapped out, not in the sum"),
        (c.page_table_bytes.unwrap_or(0), "page tables, not in the sum"),
        (c.left_out_bytes, "left out of the core file"),
    ] {
        if bytes > 0 {
            let _ = writeln!(out, "  {text}: {}", mib(bytes as i128));
        }
    }
    for other in &c.other_allocators {
        let name = printable(&other.name);
        let _ = writeln!(out, "  another allocator is loaded: {name}; its heaps aren't read");
    }
}

fn verdict(out: &mut String, c: &Census) {
    let worst = Group::Freed.classes().filter_map(|k| class(c, k)).max_by_key(|r| r.bytes);
    let Some(worst) = worst.filter(|_| share(c.stranded_bytes, c.rss_bytes) >= 0.01) else {
        let _ = writeln!(out, "\nNearly all of it is in use; allocators keep next to nothing.");
        return;
    };
    let _ = writeln!(
        out,
        "\n{} were freed and not given back to the system, mostly {} ({}).",
        mib(c.stranded_bytes as i128),
        worst.text,
        mib(worst.bytes as i128),
    );
    let pinned = c.arenas.iter().filter(|a| a.live_bytes > 0 && a.live_bytes * 10 < a.bytes);
    let (count, live) = pinned.fold((0, 0), |(n, live), a| (n + 1, live + a.live_bytes));
    if count > 0 && c.arenas.len() > 1 {
        let _ = writeln!(
            out,
            "{count} of {} arenas are less than a tenth full; {} in use keep them from going back.",
            c.arenas.len(),
            mib(live as i128),
        );
    }
}

fn types(out: &mut String, c: &Census, title: &str, list: &[TypeReport], most: usize) {
    if list.is_empty() || most == 0 {
        return;
    }
    let _ = writeln!(
        out,
        "\n{title:<46}{:>14}{:>9}{:>12}{:>16}",
        "Bytes", "Share", "Objects", "In buffers"
    );
    for t in list.iter().take(most) {
        let _ = writeln!(
            out,
            "  {:<44}{:>14}{:>7.1} %{:>12}{:>16}",
            shorten(&printable(&t.name), 43),
            mib(t.bytes as i128),
            share(t.bytes, c.rss_bytes) * 100.0,
            t.count,
            mib(t.buffer_bytes as i128),
        );
    }
    if list.len() > most {
        let _ = writeln!(out, "  ... and {} more", list.len() - most);
    }
}

fn imported(out: &mut String, c: &Census) {
    if c.imported_code_bytes > 0 {
        let bytes = mib(c.imported_code_bytes as i128);
        let _ = writeln!(
            out,
            "  {bytes} of these are imported code and the interpreter's own: functions, types, modules"
        );
    }
}

/// How full a group of arenas is, as a cell.
fn cell(arenas: &[ArenaReport]) -> char {
    let live: u64 = arenas.iter().map(|a| a.live_bytes).sum();
    let all: u64 = arenas.iter().map(|a| a.bytes).sum();
    const CELLS: [char; 9] = ['·', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let step = (share(live, all) * 8.0).ceil() as usize;
    CELLS[step.min(8)]
}

fn map(out: &mut String, c: &Census) {
    if c.arenas.is_empty() {
        return;
    }
    let per_cell = c.arenas.len().div_ceil(MAP * MAP_LINES);
    let each = if per_cell == 1 { "one" } else { "several" };
    let _ = writeln!(
        out,
        "\nArenas of small objects: {} of {} (a cell is {each}; · empty, █ full)",
        c.arenas.len(),
        mib(c.arenas[0].bytes as i128),
    );
    let cells: Vec<char> = c.arenas.chunks(per_cell).map(cell).collect();
    for line in cells.chunks(MAP) {
        let _ = writeln!(out, "  {}", line.iter().collect::<String>());
    }
}

fn pins(out: &mut String, c: &Census, most: usize) {
    let mut shown: Vec<u64> = Vec::new();
    for pin in c.pins.iter().filter(|p| p.held_bytes > 0) {
        if !shown.contains(&pin.arena) {
            if shown.len() == most {
                break;
            }
            if shown.is_empty() {
                let _ = writeln!(out, "\nWhat keeps the arenas that hold back most");
            }
            shown.push(pin.arena);
            let held = mib(pin.held_bytes as i128);
            let _ = writeln!(out, "  arena {:#x} holds back {held}:", pin.arena);
        }
        let name = shorten(&printable(&pin.type_name), 47);
        let path = pin.path.as_deref().map_or_else(String::new, |path| {
            format!(", one of them: {}", shorten(&printable(path), WIDTH - 40))
        });
        let _ = writeln!(out, "    {} × {name}, {} bytes{path}", pin.count, pin.bytes);
    }
}

/// Heaps that keep less below their last chunk aren't worth a line, bytes.
const KEPT: u64 = 1 << 20;

fn heaps(out: &mut String, c: &Census, most: usize) {
    for (i, h) in c.heaps.iter().filter(|h| h.free_bytes >= KEPT).take(most).enumerate() {
        if i == 0 {
            let _ = writeln!(out, "\nWhat keeps the heaps of the C library that hold back most");
        }
        let _ = writeln!(
            out,
            "  heap {:#x} holds back {} in holes, and {} at its end:",
            h.address,
            mib(h.free_bytes as i128),
            mib(h.top_bytes as i128),
        );
        for t in &h.holders {
            let who = if t.name.is_empty() { "C code" } else { &t.name };
            let (who, chunks) = (shorten(&printable(who), WIDTH - 40), t.count);
            let _ = writeln!(out, "    {chunks} blocks, {}: {who}", mib(t.bytes as i128));
        }
        let Some(last) = &h.last else { continue };
        let who = match (&last.path, last.type_name.as_str()) {
            (Some(path), _) => path.as_str(),
            (None, "") => "C code",
            (None, name) => name,
        };
        let who = shorten(&printable(who), WIDTH - 40);
        let _ = writeln!(out, "    the last one, {} bytes: {who}", last.bytes);
    }
}

/// Single objects or buffers below this are not worth a line, bytes.
const LARGE: u64 = 1 << 20;

fn largest(out: &mut String, c: &Census) {
    let large: Vec<_> = c.largest.iter().filter(|l| l.bytes >= LARGE).collect();
    if !large.is_empty() {
        let _ = writeln!(out, "\nLargest single objects");
    }
    for l in large {
        let who = l.path.as_deref().unwrap_or(&l.type_name);
        let who = shorten(&printable(who), WIDTH - 20);
        let _ = writeln!(out, "  {:>14}  {who}", mib(l.bytes as i128));
    }
}

fn sizes(out: &mut String, c: &Census) {
    let _ = writeln!(out, "\nBlock size       Pools      In use        Free");
    for s in &c.size_classes {
        let _ = writeln!(out, "{:>10}{:>12}{:>12}{:>12}", s.block_bytes, s.pools, s.in_use, s.free);
    }
}

/// The census as text.
pub fn render(c: &Census, show: &Show) -> String {
    let mut out = String::new();
    title(&mut out, c);
    classes(&mut out, c);
    verdict(&mut out, c);
    types(&mut out, c, "Objects by type", &c.types, show.types);
    if show.types > 0 {
        imported(&mut out, c);
    }
    types(&mut out, c, "Dead objects on free lists", &c.free_lists, show.types.min(3));
    largest(&mut out, c);
    map(&mut out, c);
    pins(&mut out, c, show.pins);
    heaps(&mut out, c, show.pins);
    if show.sizes {
        sizes(&mut out, c);
    }
    if c.doubt_count > 0 {
        let _ = writeln!(out, "\n{} doubts: something was read that can't be right", c.doubt_count);
        for d in c.doubts.iter().take(5) {
            let _ = writeln!(out, "  {d}");
        }
    }
    out
}

/// What grew and what shrank from one census to a later one.
pub fn render_diff(a: &Census, b: &Census, most: usize) -> String {
    let mut out = String::new();
    let signed = |from: u64, to: u64| to as i128 - from as i128;
    let plus = |bytes: i128| format!("{}{}", if bytes > 0 { "+" } else { "" }, mib(bytes));
    let _ = writeln!(
        out,
        "Resident memory: {} → {} ({})",
        mib(a.rss_bytes as i128),
        mib(b.rss_bytes as i128),
        plus(signed(a.rss_bytes, b.rss_bytes)),
    );
    let _ = writeln!(out, "\n{:<50}{:>14}{:>14}{:>16}", "Class", "Before", "After", "Change");
    for k in Class::ALL {
        let (x, y) = (bytes_of(a, k), bytes_of(b, k));
        if x != y {
            let change = plus(signed(x, y));
            let (x, y) = (mib(x as i128), mib(y as i128));
            let _ = writeln!(out, "{:<50}{x:>14}{y:>14}{change:>16}", k.text());
        }
    }
    let find = |c: &Census, name: &str| {
        c.types.iter().find(|t| t.name == name).map_or((0, 0), |t| (t.count, t.bytes))
    };
    let mut names: Vec<&str> = a.types.iter().chain(&b.types).map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut changes: Vec<(&str, i128, i128)> = names
        .into_iter()
        .map(|name| {
            let ((n, x), (m, y)) = (find(a, name), find(b, name));
            (name, signed(x, y), signed(n, m))
        })
        .filter(|&(_, bytes, count)| bytes != 0 || count != 0)
        .collect();
    changes.sort_by_key(|&(name, bytes, _)| (std::cmp::Reverse(bytes.abs()), name));
    if !changes.is_empty() {
        let _ = writeln!(out, "\n{:<50}{:>14}{:>14}", "Type", "Objects", "Bytes");
    }
    for (name, bytes, count) in changes.iter().take(most) {
        let name = shorten(&printable(name), 49);
        let _ = writeln!(out, "{name:<50}{count:>+14}{:>14}", plus(*bytes));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_census::{HeapReport, InterpreterReport, LargeReport, Pin};

    fn census() -> Census {
        let class = |class: Class, mib: u64| ClassReport {
            name: class.name().to_owned(),
            bytes: mib << 20,
            text: class.text().to_owned(),
        };
        let arena = |live: u64| ArenaReport {
            address: 0x7f00_0000_0000,
            bytes: 1 << 20,
            resident_bytes: 1 << 20,
            live_bytes: live << 10,
            ..ArenaReport::default()
        };
        Census {
            pid: Some(4711),
            command_line: vec!["python3".to_owned(), "app.py".to_owned()],
            paused_ns: Some(12_000_000),
            rss_bytes: 100 << 20,
            kernel_rss_bytes: Some(100 << 20),
            swapped_bytes: 1 << 20,
            stranded_bytes: 62 << 20,
            classes: vec![
                class(Class::Objects, 30),
                class(Class::FreeBlocks, 2),
                class(Class::FreePools, 60),
                class(Class::Code, 8),
            ],
            interpreters: vec![InterpreterReport {
                version: "3.11.7 (main, May  9 2026) [GCC 12.2.0]".to_owned(),
                module: String::new(),
                allocators: 1,
            }],
            types: vec![TypeReport {
                name: "app.\u{1b}Record".to_owned(),
                count: 1000,
                bytes: 30 << 20,
                buffer_bytes: 1 << 20,
            }],
            imported_code_bytes: 4 << 20,
            arenas: [0, 1, 64, 512, 1024].map(arena).to_vec(),
            pins: vec![Pin {
                arena: 0x7f00_0000_0000,
                held_bytes: 1 << 20,
                type_name: "str".to_owned(),
                count: 3,
                bytes: 240,
                path: Some("app.CACHE[\"k\"] → str".to_owned()),
            }],
            largest: vec![LargeReport {
                address: 1,
                type_name: "bytes".to_owned(),
                bytes: 5 << 20,
                path: Some("app.BLOB → bytes".to_owned()),
            }],
            heaps: vec![HeapReport {
                address: 0x5500_0000_0000,
                bytes: 45 << 20,
                in_use_bytes: 4 << 20,
                free_bytes: 40 << 20,
                top_bytes: 1 << 20,
                holders: vec![TypeReport { count: 7, bytes: 1 << 20, ..TypeReport::default() }],
                last: Some(LargeReport {
                    type_name: "bytearray".to_owned(),
                    bytes: 30_016,
                    path: Some("app.KEEP → bytearray".to_owned()),
                    ..LargeReport::default()
                }),
                ..HeapReport::default()
            }],
            ..Census::default()
        }
    }

    const TEXT: &str = "\
Census of process 4711: python3 app.py
CPython 3.11.7; stood still for 12 ms

resident memory (RSS)                                100.000 MiB   100.0 %
  in use by Python                                    30.000 MiB    30.0 %  ███████▎
  freed, kept by an allocator                         62.000 MiB    62.0 %  ██████████████▉
    free pools in arenas that are in use              60.000 MiB    60.0 %
    free blocks in pools that are in use               2.000 MiB     2.0 %
  libraries and files                                  8.000 MiB     8.0 %  █▉
  not named                                            0.000 MiB     0.0 %
  swapped out, not in the sum: 1.000 MiB

62.000 MiB were freed and not given back to the system, mostly free pools in arenas that are in use (60.000 MiB).
2 of 5 arenas are less than a tenth full; 0.063 MiB in use keep them from going back.

Objects by type                                        Bytes    Share     Objects      In buffers
  app.\u{fffd}Record                                     30.000 MiB   30.0 %        1000       1.000 MiB
  4.000 MiB of these are imported code and the interpreter's own: functions, types, modules

Largest single objects
       5.000 MiB  app.BLOB → bytes

Arenas of small objects: 5 of 1.000 MiB (a cell is one; · empty, █ full)
  ·▁▁▄█

What keeps the arenas that hold back most
  arena 0x7f0000000000 holds back 1.000 MiB:
    3 × str, 240 bytes, one of them: app.CACHE[\"k\"] → str

What keeps the heaps of the C library that hold back most
  heap 0x550000000000 holds back 40.000 MiB in holes, and 1.000 MiB at its end:
    7 blocks, 1.000 MiB: C code
    the last one, 30016 bytes: app.KEEP → bytearray
";

    #[test]
    fn a_person_reads_this() {
        assert_eq!(render(&census(), &Show::default()), TEXT);
    }

    #[test]
    fn a_diff_shows_what_changed() {
        let (a, mut b) = (census(), census());
        b.rss_bytes += 1 << 20;
        b.classes[0].bytes += 1 << 20;
        b.types[0].count += 20;
        b.types[0].bytes += 1 << 20;
        let text = render_diff(&a, &b, 10);
        let wanted = "\
Resident memory: 100.000 MiB → 101.000 MiB (+1.000 MiB)

Class                                                     Before         After          Change
live Python objects                                   30.000 MiB    31.000 MiB      +1.000 MiB

Type                                                     Objects         Bytes
app.\u{fffd}Record                                                  +20    +1.000 MiB
";
        assert_eq!(text, wanted);
    }
}
