//! A table as comma-separated values, for spreadsheets: one line of names, then one for each row.

use crate::group::By;
use crate::place::{domain_name, Key, Place};
use crate::table::{Row, Table};

const FIGURES: [&str; 5] = ["bytes", "blocks", "total_bytes", "total_blocks", "share_percent"];

/// Renders a table as CSV (RFC 4180, but lines end in `\n`).
pub fn table(table: &Table) -> String {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    let names: &[&str] = match table.group {
        By::Path => &["path"],
        By::Line => &["file", "line", "function"],
        By::Function => &["file", "function"],
        By::File => &["file"],
        By::Thread => &["thread", "tid", "pid"],
        By::Domain => &["domain"],
        By::Type => &["type"],
    };
    // Writing to memory can't fail, and all rows have as many fields as the first.
    let _ = writer.write_record(names.iter().chain(&FIGURES));
    for row in &table.rows {
        let _ = writer.write_record(key(&row.key).into_iter().chain(figures(row)));
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

fn key(key: &Key) -> Vec<String> {
    let number = |n: u32| if n == 0 { String::new() } else { n.to_string() };
    match key {
        Key::Path(path) => {
            let places: Vec<String> = path.inwards().iter().map(place).collect();
            vec![places.join(";")]
        }
        Key::Line(place) => vec![place.file.to_owned(), number(place.line), function(place)],
        Key::Function(place) => vec![place.file.to_owned(), function(place)],
        Key::File(place) => vec![place.file.to_owned()],
        Key::Thread { name, tid, pid } => vec![(*name).to_owned(), number(*tid), pid.to_string()],
        Key::Domain(domain) => vec![domain_name(*domain).to_owned()],
        Key::Type(name) => vec![(*name).to_owned()],
    }
}

fn function(place: &Place) -> String {
    match (place.function, place.address) {
        ("", 0) => String::new(),
        ("", address) => format!("{address:#x}"),
        (function, _) => function.to_owned(),
    }
}

fn place(place: &Place) -> String {
    format!("{} ({}:{})", function(place), place.file, place.line)
}

fn figures(row: &Row) -> [String; 5] {
    let total = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    [
        row.own.bytes.to_string(),
        row.own.blocks.to_string(),
        total(row.total.map(|total| total.bytes)),
        total(row.total.map(|total| total.blocks)),
        format!("{:.3}", row.share),
    ]
}
