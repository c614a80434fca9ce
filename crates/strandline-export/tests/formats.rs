//! Every format, read back: what it says has to be what the profile says.

mod sample;

#[path = "../src/pprof/proto.rs"]
mod proto;

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use prost::Message;
use strandline_export::{export, ExportError, Format, Options};
use strandline_profile::{Path, Process, Profile, Weight};

fn bytes(profile: &Profile, format: Format, options: &Options) -> Vec<u8> {
    let mut to = Vec::new();
    export(profile, format, options, &mut to).unwrap();
    to
}

fn all(profile: &Profile, format: Format) -> Vec<u8> {
    bytes(profile, format, &Options::default())
}

fn sum(profile: &Profile, of: impl Fn(&Path) -> u64) -> u64 {
    profile.processes.iter().flat_map(|p| &p.paths).map(of).sum()
}

/// The sums of a profile, by the tables' names.
fn sums(profile: &Profile) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([
        ("allocated_bytes", sum(profile, |p| p.allocated.bytes)),
        ("allocated_blocks", sum(profile, |p| p.allocated.blocks)),
        ("freed_bytes", sum(profile, |p| p.freed.bytes)),
        ("freed_blocks", sum(profile, |p| p.freed.blocks)),
        ("in_use_bytes", sum(profile, |p| p.in_use().bytes)),
        ("in_use_blocks", sum(profile, |p| p.in_use().blocks)),
        ("at_peak_bytes", sum(profile, |p| p.at_peak.bytes)),
        ("at_peak_blocks", sum(profile, |p| p.at_peak.blocks)),
        ("at_rss_peak_bytes", sum(profile, |p| p.at_rss_peak.bytes)),
        ("at_rss_peak_blocks", sum(profile, |p| p.at_rss_peak.blocks)),
        ("temporary_bytes", sum(profile, |p| p.temporary.bytes)),
        ("temporary_blocks", sum(profile, |p| p.temporary.blocks)),
    ])
}

#[test]
fn the_same_profile_gives_the_same_bytes() {
    for format in Format::ALL {
        let (one, two) = (sample::profile(50), sample::profile(50));
        assert!(all(&one, format) == all(&two, format), "{}", format.name());
    }
}

#[test]
fn an_empty_profile_can_be_exported() {
    let nothing = Profile { processes: vec![Process::default()], ..Profile::default() };
    for format in Format::ALL {
        all(&Profile::default(), format);
        all(&nothing, format);
    }
}

#[test]
fn one_process_alone() {
    let profile = sample::profile(0);
    let options = Options { weight: Weight::Allocated, process: Some(4800) };
    let text = String::from_utf8(bytes(&profile, Format::Folded, &options)).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with("<module> (/srv/my app/app.py:40);child (/srv/my app/app.py:22) "));
    let missing = Options { process: Some(1), ..Options::default() };
    let error = export(&profile, Format::Csv, &missing, &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, ExportError::NoSuchProcess { pid: 1, .. }));
    assert_eq!(error.to_string(), "the profile has no process 1; it has 4711, 4800");
}

#[test]
fn folded_has_every_weight() {
    let profile = sample::profile(200);
    for weight in Weight::ALL {
        let text = bytes(&profile, Format::Folded, &Options { weight, process: None });
        let text = String::from_utf8(text).unwrap();
        let figure = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
        let expected = sum(&profile, |p| weight.of(p).bytes);
        assert_eq!(text.lines().map(figure).sum::<u64>(), expected);
        let stacks: Vec<&str> = text.lines().map(|l| l.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(stacks.iter().collect::<HashSet<_>>().len(), stacks.len(), "each stack once");
    }
}

fn decode(profile: &Profile) -> proto::Profile {
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(&*all(profile, Format::Pprof)).read_to_end(&mut raw).unwrap();
    proto::Profile::decode(&*raw).unwrap()
}

#[test]
fn pprof_decodes() {
    let profile = sample::profile(200);
    let decoded = decode(&profile);
    let text = |index: i64| decoded.string_table[index as usize].as_str();
    assert_eq!(text(0), "");
    let columns: Vec<&str> = decoded.sample_type.iter().map(|t| text(t.r#type)).collect();
    let heap = ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"];
    assert_eq!(columns[..4], heap);
    assert_eq!(text(decoded.default_sample_type), "inuse_space");
    assert_eq!(decoded.time_nanos as u64, sample::STARTED);
    assert_eq!(decoded.duration_nanos, 1_000_000_000);
    let totals = |c: usize| decoded.sample.iter().map(|s| s.value[c] as u64).sum::<u64>();
    let expected = sums(&profile);
    for (column, name) in [
        ("alloc_objects", "allocated_blocks"),
        ("alloc_space", "allocated_bytes"),
        ("inuse_objects", "in_use_blocks"),
        ("inuse_space", "in_use_bytes"),
        ("peak_objects", "at_peak_blocks"),
        ("peak_space", "at_peak_bytes"),
        ("temporary_objects", "temporary_blocks"),
        ("temporary_space", "temporary_bytes"),
        ("rss_peak_space", "at_rss_peak_bytes"),
    ] {
        let at = columns.iter().position(|c| *c == column).unwrap();
        assert_eq!(totals(at), expected[name], "{column}");
    }
    let at = columns.iter().position(|c| *c == "stranded_space").unwrap();
    assert_eq!(totals(at), 1_234_567 + 765_433 + 4096);
}

#[test]
fn pprof_refers_to_what_is_there() {
    let decoded = decode(&sample::profile(200));
    let text = |index: i64| decoded.string_table[index as usize].as_str();
    for sample in &decoded.sample {
        assert!(!sample.location_id.is_empty());
        for &id in &sample.location_id {
            let location = &decoded.location[id as usize - 1];
            assert_eq!(location.id, id);
            assert_eq!(decoded.mapping[location.mapping_id as usize - 1].id, location.mapping_id);
            let function = &decoded.function[location.line[0].function_id as usize - 1];
            assert_ne!(function.name, function.system_name);
        }
    }
    let labels = |key: &str| -> HashSet<&str> {
        let of = decoded.sample.iter().flat_map(|s| &s.label).filter(|l| text(l.key) == key);
        of.map(|l| text(l.str)).collect()
    };
    assert_eq!(labels("pid"), HashSet::from(["4711", "4800"]));
    assert!(labels("thread").contains("pool, \"worker\"-0"));
    assert_eq!(labels("domain").len(), 5);
    let numpy = decoded.mapping.iter().find(|m| text(m.build_id) == "deadbeef").unwrap();
    assert_eq!(text(numpy.filename), "/opt/numpy/_multiarray_umath.so");
}

#[test]
fn speedscope_has_what_its_schema_asks_for() {
    let profile = sample::profile(200);
    let file: serde_json::Value =
        serde_json::from_slice(&all(&profile, Format::Speedscope)).unwrap();
    assert_eq!(file["$schema"], "https://www.speedscope.app/file-format-schema.json");
    let frames = file["shared"]["frames"].as_array().unwrap();
    assert!(frames.iter().all(|f| f["name"].is_string()));
    let mut peak = 0;
    for one in file["profiles"].as_array().unwrap() {
        assert_eq!((&one["type"], &one["unit"]), (&"sampled".into(), &"bytes".into()));
        let weights: Vec<u64> =
            one["weights"].as_array().unwrap().iter().map(|w| w.as_u64().unwrap()).collect();
        let samples = one["samples"].as_array().unwrap();
        assert_eq!(samples.len(), weights.len());
        assert_eq!(one["endValue"], weights.iter().sum::<u64>());
        let indices = samples.iter().flat_map(|s| s.as_array().unwrap());
        assert!(indices.map(|i| i.as_u64().unwrap()).all(|i| (i as usize) < frames.len()));
        if one["name"].as_str().unwrap().ends_with(": in use at the peak") {
            peak += weights.iter().sum::<u64>();
        }
    }
    assert_eq!(peak, sums(&profile)["at_peak_bytes"]);
    assert_eq!(file["activeProfileIndex"], 0);
}

#[test]
fn firefox_columns_are_of_one_length() {
    let profile = sample::profile(200);
    let file: serde_json::Value = serde_json::from_slice(&all(&profile, Format::Firefox)).unwrap();
    let mut in_use = 0;
    for thread in file["threads"].as_array().unwrap() {
        for (name, table) in thread.as_object().unwrap() {
            let Some(length) = table["length"].as_u64() else { continue };
            for (column, values) in table.as_object().unwrap() {
                let lengths = values.as_array().map(|v| v.len() as u64);
                assert_eq!(lengths.unwrap_or(length), length, "{name}.{column}");
            }
        }
        let weights = thread["nativeAllocations"]["weight"].as_array().unwrap();
        in_use += weights.iter().map(|w| w.as_i64().unwrap()).sum::<i64>();
    }
    assert_eq!(in_use as u64, sums(&profile)["in_use_bytes"]);
    let counter = &file["counters"][0];
    assert_eq!(counter["name"], "In use");
    let counts = counter["samples"]["count"].as_array().unwrap();
    let last: i64 = counts.iter().map(|c| c.as_i64().unwrap()).sum();
    assert_eq!(last as u64, profile.processes[0].timeline.points.last().unwrap().in_use);
}

/// A row of a table: sums are made over figures, the rest is compared.
type Texts = Vec<(String, Vec<String>)>;

fn parquet_rows(file: Vec<u8>) -> (Texts, BTreeMap<String, u64>) {
    let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
    let (mut texts, mut sums) = (Texts::new(), BTreeMap::new());
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        for (i, (name, _)) in row.get_column_iter().enumerate() {
            if name.ends_with("_bytes") || name.ends_with("_blocks") {
                *sums.entry(name.clone()).or_default() += row.get_long(i).unwrap() as u64;
            }
        }
        let text = |i| row.get_string(i).unwrap().clone();
        assert!(row.get_list(9).unwrap().len() > 0);
        let pid = row.get_long(0).unwrap();
        texts.push((format!("{pid} {}", text(5)), vec![text(2), text(4), text(6), text(7)]));
    }
    (texts, sums)
}

fn csv_rows(file: &[u8]) -> (Texts, BTreeMap<String, u64>) {
    let mut reader = csv::Reader::from_reader(file);
    let names = reader.headers().unwrap().clone();
    let (mut texts, mut sums) = (Texts::new(), BTreeMap::new());
    for row in reader.records() {
        let row = row.unwrap();
        for (name, value) in names.iter().zip(&row) {
            if name.ends_with("_bytes") || name.ends_with("_blocks") {
                *sums.entry(name.into()).or_default() += value.parse::<u64>().unwrap();
            }
        }
        let text = |i: usize| row[i].to_owned();
        texts.push((format!("{} {}", text(0), text(5)), vec![text(2), text(4), text(6), text(7)]));
    }
    (texts, sums)
}

#[test]
fn tables_say_the_same_and_have_the_profile_s_sums() {
    let profile = sample::profile(20_000);
    let (parquet, parquet_sums) = parquet_rows(all(&profile, Format::Parquet));
    let (csv, csv_sums) = csv_rows(&all(&profile, Format::Csv));
    assert!(parquet == csv);
    assert_eq!(parquet_sums, csv_sums);
    let expected: BTreeMap<String, u64> =
        sums(&profile).into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect();
    assert_eq!(parquet_sums, expected);
    let ids: HashSet<&String> = parquet.iter().map(|(id, _)| id).collect();
    assert!(ids.len() > 10_000);
    assert!(parquet.iter().any(|(_, texts)| texts[2] == "two\nlines\r\n\ttab"));
}
