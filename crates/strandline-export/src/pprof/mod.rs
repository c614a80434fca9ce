//! pprof: the heap columns that `go tool pprof` knows, in its order, and ours behind them.

mod proto;
mod tables;

use std::io::{self, Write};

use flate2::write::GzEncoder;
use flate2::Compression;
use prost::Message;
use strandline_profile::{Amount, Process, Profile};

use self::proto::{Label, Sample, ValueType};
use self::tables::Tables;
use crate::error::ExportError;
use crate::names;
use crate::view::{Row, View};

/// The columns: name and unit.
const COLUMNS: [(&str, &str); 10] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("peak_objects", "count"),
    ("peak_space", "bytes"),
    ("stranded_space", "bytes"),
    ("temporary_objects", "count"),
    ("temporary_space", "bytes"),
    ("rss_peak_space", "bytes"),
];
const DEFAULT_COLUMN: &str = "inuse_space";
/// Where what an allocator keeps stands in [`COLUMNS`].
const STRANDED: usize = 6;

/// Writes all processes into one profile; their ids are labels.
pub fn write(
    profile: &Profile,
    processes: &[&Process],
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    let command = |p: &&Process| p.command.clone();
    let command = processes.first().map(command).unwrap_or_default();
    let mut tables = Tables::new(names::program(&command));
    let mut out = Out { to: GzEncoder::new(to, Compression::default()), buffer: Vec::new() };
    out.message(&head(profile, &mut tables))?;
    for process in processes {
        samples(process, &mut tables, &mut out)?;
    }
    rest(tables, &mut out)?;
    out.to.finish()?.flush()?;
    Ok(())
}

/// Pieces of a profile on their way.
struct Out<'a> {
    to: GzEncoder<&'a mut dyn Write>,
    buffer: Vec<u8>,
}

impl Out<'_> {
    fn message(&mut self, piece: &proto::Profile) -> io::Result<()> {
        self.buffer.clear();
        piece.encode(&mut self.buffer).map_err(io::Error::other)?;
        self.to.write_all(&self.buffer)
    }
}

fn head(profile: &Profile, tables: &mut Tables) -> proto::Profile {
    let mut value_type =
        |(name, unit)| ValueType { r#type: tables.string(name), unit: tables.string(unit) };
    let sample_type = COLUMNS.map(&mut value_type).to_vec();
    let period_type = Some(value_type(("space", "bytes")));
    let meta = &profile.meta;
    let mut comment = vec![
        format!("strandline {}", meta.strandline),
        format!("command: {}", meta.command.join(" ")),
    ];
    comment.extend(profile.doubts.iter().cloned());
    proto::Profile {
        sample_type,
        period_type,
        // Every allocation was counted.
        period: 1,
        time_nanos: clamp(meta.started),
        duration_nanos: clamp(meta.written.saturating_sub(meta.started)),
        comment: comment.iter().map(|text| tables.string(text)).collect(),
        default_sample_type: tables.string(DEFAULT_COLUMN),
        ..proto::Profile::default()
    }
}

fn samples(process: &Process, tables: &mut Tables, out: &mut Out<'_>) -> Result<(), ExportError> {
    let view = View::of(process);
    let locations = tables.places(process, &view.tree);
    let location = |place: u32| locations.get(place as usize).copied();
    let mut label = |key, text: &str| Label { key: tables.string(key), str: tables.string(text) };
    let pid = label("pid", &process.pid.to_string());
    for row in &view.rows {
        let thread = label("thread", &view.thread_name(row));
        let domain = label("domain", names::domain(row.domain));
        let sample = Sample {
            location_id: view.tree.inward_out(row.node).filter_map(location).collect(),
            value: values(row).to_vec(),
            label: vec![thread, domain, pid],
        };
        out.message(&proto::Profile { sample: vec![sample], ..Default::default() })?;
    }
    for (name, bytes) in [
        (names::STRANDED_ARENAS, process.totals.stranded_arenas),
        (names::STRANDED_HEAP, process.totals.stranded_heap),
    ] {
        if bytes == 0 {
            continue;
        }
        let mut value = vec![0; COLUMNS.len()];
        if let Some(value) = value.get_mut(STRANDED) {
            *value = clamp(bytes);
        }
        let sample = Sample { location_id: vec![tables.named(name)], value, label: vec![pid] };
        out.message(&proto::Profile { sample: vec![sample], ..Default::default() })?;
    }
    Ok(())
}

/// The values of a row, in the order of [`COLUMNS`].
fn values(row: &Row) -> [i64; COLUMNS.len()] {
    let pair = |a: Amount| (clamp(a.blocks), clamp(a.bytes));
    let (allocated, in_use) = (pair(row.allocated), pair(row.in_use));
    let (peak, temporary) = (pair(row.at_peak), pair(row.temporary));
    [
        allocated.0,
        allocated.1,
        in_use.0,
        in_use.1,
        peak.0,
        peak.1,
        0,
        temporary.0,
        temporary.1,
        clamp(row.at_rss_peak.bytes),
    ]
}

/// What the samples refer to.
fn rest(tables: Tables, out: &mut Out<'_>) -> io::Result<()> {
    let Tables { mapping, function, location, string_table, .. } = tables;
    out.message(&proto::Profile { mapping, ..Default::default() })?;
    out.message(&proto::Profile { location, ..Default::default() })?;
    out.message(&proto::Profile { function, ..Default::default() })?;
    out.message(&proto::Profile { string_table, ..Default::default() })
}

fn clamp(value: u64) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
