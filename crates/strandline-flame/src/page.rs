//! The page: markup, style, script and data put together.

use std::io::{Cursor, Read, Write};

use base64::engine::general_purpose::STANDARD;
use flate2::read::GzEncoder;
use flate2::Compression;
use strandline_profile::{Profile, Weight};

use crate::columns::Columns;
use crate::entries::Entries;
use crate::error::FlameError;
use crate::frames::Frames;
use crate::header::{Header, Run};
use crate::sources::Sources;
use crate::{timeline, Options};

const PAGE: &str = include_str!("../assets/page.html");
const SCRIPT: &str = include_str!("../assets/flamegraph.js");
const STYLE: &str = include_str!("../assets/flamegraph.css");
/// Version of the data; the script refuses any other.
const VERSION: u32 = 1;

/// Writes the page of one run, or of the difference of two.
pub fn write(
    runs: &[&Profile],
    options: &Options,
    sources: &dyn Sources,
    to: &mut dyn Write,
) -> Result<(), FlameError> {
    let title = options.title.clone().unwrap_or_else(|| title(runs));
    let data = data(runs, options, &title, sources)?;
    // The markers come from our own page, in any order; what stands between is written as it is.
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        to.write_all(before.as_bytes())?;
        let (marker, after) = after.split_once("}}").unwrap_or((after, ""));
        match marker {
            "title" => to.write_all(escape(&title).as_bytes())?,
            "style" => to.write_all(STYLE.as_bytes())?,
            "script" => to.write_all(SCRIPT.as_bytes())?,
            _ => pack(&data, to)?,
        }
        rest = after;
    }
    to.write_all(rest.as_bytes())?;
    to.flush()?;
    Ok(())
}

fn title(runs: &[&Profile]) -> String {
    let command = runs.last().map(|run| command(&run.meta.command)).unwrap_or_default();
    match (runs.len(), command.as_str()) {
        (2.., "") => "What has changed".to_owned(),
        (2.., command) => format!("What has changed: {command}"),
        (_, "") => "Memory by call path".to_owned(),
        (_, command) => command.to_owned(),
    }
}

/// A command for people: no longer than a line, for `-c` programs may be long.
fn command(words: &[String]) -> String {
    let command = words.join(" ");
    let line = command.lines().next().unwrap_or_default();
    match line.char_indices().nth(120) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None if line.len() < command.trim_end().len() => format!("{line}…"),
        None => line.to_owned(),
    }
}

/// Text as it may stand in an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The data, unpacked: length of the header (4 bytes, little-endian), header, columns.
fn data(
    runs: &[&Profile],
    options: &Options,
    title: &str,
    sources: &dyn Sources,
) -> Result<Vec<u8>, FlameError> {
    let mut frames = Frames::new();
    let mut columns = Columns::default();
    let (entries, tree) = Entries::new(runs, &mut frames)?;
    tree.write(&mut columns);
    entries.write(&mut columns);
    if runs.len() == 1 {
        timeline::write(&entries.sources, &mut columns);
    }
    frames.write(options.sources.then_some(sources), &mut columns)?;
    let header = Header {
        version: VERSION,
        diff: runs.len() > 1,
        title: title.to_owned(),
        weight: options.weight.name(),
        weights: Weight::ALL.iter().map(|w| (w.name(), w.title())).collect(),
        runs: runs.iter().map(|run| about(run)).collect(),
        processes: entries.processes,
        threads: entries.threads,
        columns: columns.index,
    };
    let header = serde_json::to_vec(&header).map_err(std::io::Error::from)?;
    let length = crate::error::index(header.len(), "processes")?;
    let mut data = length.to_le_bytes().to_vec();
    data.extend_from_slice(&header);
    data.append(&mut columns.bytes);
    Ok(data)
}

fn about(run: &Profile) -> Run {
    Run {
        strandline: run.meta.strandline.clone(),
        command: command(&run.meta.command),
        started: run.meta.started / 1_000_000,
        finished: run.meta.finished,
        native: run.meta.native,
        temporary_distance: run.meta.temporary_distance,
        doubts: run.doubts.clone(),
    }
}

/// Writes the data packed: gzip, then base64, which no markup can be made of.
fn pack(data: &[u8], to: &mut dyn Write) -> Result<(), FlameError> {
    let mut packed = Vec::new();
    GzEncoder::new(Cursor::new(data), Compression::default()).read_to_end(&mut packed)?;
    let mut to = base64::write::EncoderWriter::new(to, &STANDARD);
    to.write_all(&packed)?;
    to.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_each_marker_once() {
        for marker in ["title", "style", "script", "data"] {
            let count = PAGE.matches(&format!("{{{{{marker}}}}}")).count();
            assert_eq!(count, 1, "{marker}");
        }
        assert_eq!(PAGE.matches("{{").count(), 4);
    }

    #[test]
    fn script_and_style_do_not_end_their_elements() {
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("<!--"));
        assert!(!STYLE.contains("</"));
    }

    #[test]
    fn a_long_command_becomes_a_line() {
        let words = |c: &str| ["python".to_owned(), "-c".to_owned(), c.to_owned()];
        assert_eq!(command(&words("x = 1\nprint(x)")), "python -c x = 1…");
        assert_eq!(command(&words("x = 1\n")), "python -c x = 1");
        assert_eq!(command(&words(&"é".repeat(200))).chars().count(), 121);
    }
}
