//! The census of programs whose truth is known: the founding programs and the cases.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::standing::*;
use common::*;

/// Largest share of RSS without a name.
const UNNAMED: f64 = 0.001;

fn example(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../examples", name].iter().collect()
}

/// Runs a case up to its end; what it says of itself.
fn case(python: &Python, name: &str) -> (Standing, Value) {
    let mut command = Command::new(&python.path);
    command.arg(example("cases").join(name)).env("HOLD", "1").env("REMEDY", "1");
    let s = Standing::of(command, Dir::new());
    let said = s.said.last().unwrap_or_else(|| panic!("{name}: {}", s.errors()));
    let said = serde_json::from_str(said).unwrap();
    (s, said)
}

/// A case: its census, why its memory stays, and its truth. What it predicts of gc.collect() and
/// malloc_trim(0) is compared with what they return when the case then calls them.
fn named(python: &Python, name: &str) -> (Value, Value, Value) {
    let (s, said) = case(python, name);
    let census = s.census();
    check(&s, &census, UNNAMED);
    let explained = s.explained();
    let before = s.rss();
    let after: Value = serde_json::from_str(s.finish().last().unwrap()).unwrap();
    let collected = before as i64 - after["after_remedy"][0][1].as_i64().unwrap();
    let trimmed = before as i64 - after["after_remedy"][1][1].as_i64().unwrap();
    predicts(&explained, "collect", collected, name, python);
    predicts(&explained, "collect-and-trim", trimmed, name, python);
    (census, explained, said["truth"].clone())
}

/// Whether a remedy returned what was predicted: within 5 % or 0.5 MiB.
fn predicts(explained: &Value, remedy: &str, returned: i64, of: &str, python: &Python) {
    let all = explained["remedies"].as_array().unwrap();
    let found = all.iter().find(|r| r["name"] == remedy).unwrap();
    let predicted = found["predicted_bytes"].as_i64().unwrap();
    let off = (predicted - returned).abs();
    let most = (returned.abs() / 20).max(512 << 10);
    assert!(
        off <= most,
        "{of} on {:?}: {remedy} returned {returned} bytes, predicted were {predicted}",
        python.version
    );
}

/// That the verdict is about `reason`.
fn verdict(explained: &Value, verdict: &str, reason: &str) {
    let found = (explained["verdict"].as_str(), explained["reason"].as_str());
    assert_eq!(found, (Some(verdict), Some(reason)), "{explained}");
}

/// Bytes of a cause.
fn cause(explained: &Value, name: &str) -> u64 {
    let all = explained["causes"].as_array().unwrap();
    all.iter().filter(|c| c["name"] == name).map(|c| u(c, "bytes")).sum()
}

/// That the bytes are right within 3 % or 0.3 MiB.
fn about(bytes: u64, truth: u64) {
    let off = bytes.abs_diff(truth);
    assert!(off <= (truth * 3 / 100).max(300 << 10), "{bytes} bytes, not {truth}");
}

fn of_type(census: &Value, name: &str) -> u64 {
    let types = census["types"].as_array().unwrap();
    types.iter().find(|t| t["name"] == name).map_or(0, |t| u(t, "bytes"))
}

#[test]
fn a_cache_that_grows() {
    each(|python| {
        let (census, explained, truth) = named(python, "01_leak_global_cache.py");
        let bytes = if python.version.0 == 2 { "str" } else { "bytes" };
        assert!(count(&census, bytes) >= u(&truth, "entries"));
        assert!(of_type(&census, bytes) >= 1000 * u(&truth, "entries"));
        verdict(&explained, "referenced", "leak");
        about(cause(&explained, "leak"), u(&truth, "live_bytes"));
        assert_eq!(explained["holders"][0]["path"], truth["holder"]);
    });
}

#[test]
fn cycles_that_wait_for_the_collector() {
    each(|python| {
        let (_, explained, truth) = named(python, "02_cycle_gc_disabled.py");
        verdict(&explained, "garbage", "uncollected_cycles");
        let garbage = cause(&explained, "uncollected_cycles");
        assert!(garbage > 40 << 20, "{garbage} of {truth}");
    });
}

#[test]
fn survivors_that_pin_arenas() {
    each(|python| {
        let (census, explained, truth) = named(python, "03_pymalloc_pinned_arenas.py");
        assert!(count(&census, "str") >= u(&truth, "survivors"));
        let kept = class(&census, "python_free_blocks") + class(&census, "python_free_pools");
        // The truth is in bytes asked for; blocks are multiples of 16.
        let freed = u(&truth, "freed_bytes");
        assert!((freed..freed * 4 / 3).contains(&kept), "{kept}, not {freed}");
        verdict(&explained, "allocator_retention", "pymalloc_fragmentation");
        about(cause(&explained, "pymalloc_fragmentation"), kept);
        let pins = census["pins"].as_array().unwrap();
        assert_eq!(pins[0]["type_name"], "str", "{pins:?}");
        let path = pins[0]["path"].as_str().unwrap_or("nobody");
        assert!(path.starts_with("__main__.keep["), "{path}");
    });
}

#[test]
fn holes_in_the_heap() {
    each(|python| {
        let (_, explained, truth) = named(python, "05_freed_blocks_below_mmap_threshold.py");
        verdict(&explained, "allocator_retention", "glibc_free_below_pinned_top");
        about(cause(&explained, "glibc_free_below_pinned_top"), u(&truth, "freed_bytes"));
        assert_eq!(explained["pins"][0]["what"], "heap");
    });
}

#[test]
fn ints_on_a_free_list() {
    each(|python| {
        let (_, explained, truth) = named(python, "06_int_free_list_27.py");
        match python.version.0 {
            2 => verdict(&explained, "allocator_retention", "int_free_list"),
            _ => verdict(&explained, "healthy", "returned"),
        }
        about(cause(&explained, "int_free_list"), u(&truth, "bytes_in_int_blocks"));
    });
}

#[test]
fn memory_of_c_code() {
    each(|python| {
        let (_, explained, truth) = named(python, "08_ctypes_malloc_leak.py");
        verdict(&explained, "native", "native_leak");
        about(cause(&explained, "native_leak"), u(&truth, "chunk_bytes"));
    });
}

#[test]
fn a_mapped_file() {
    each(|python| {
        let (_, explained, truth) = named(python, "09_mmap_file_counted_as_rss.py");
        verdict(&explained, "not_python", "file_mapping");
        about(cause(&explained, "file_mapping"), u(&truth, "file_bytes"));
    });
}

#[test]
fn memory_that_is_used_again() {
    each(|python| {
        let (_, explained, truth) = named(python, "13_plateau_not_leak.py");
        verdict(&explained, "healthy", "plateau");
        about(cause(&explained, "referenced"), u(&truth, "live_bytes"));
    });
}

/// A founding program that stands after the line `at` of its function, and before its first.
fn founding(python: &Python, name: &str, at: &str) -> (Value, Value) {
    let source = std::fs::read_to_string(example(name)).unwrap();
    let at = format!("    {at}");
    assert!(source.contains(&at), "{name} has no line {at:?}");
    let stop = |line: &str, before: bool| {
        let source = if before {
            source.replacen("    x =", "    stand()\n    x =", 1)
        } else {
            source.replacen(line, &format!("{line}; stand()"), 1)
        };
        let code = format!(
            "def stand():\n    say('ready')\n    time.sleep(600)\nprofile = lambda f: f\n{source}"
        );
        let s = Standing::start(python, &code);
        let census = s.census();
        check(&s, &census, UNNAMED);
        census
    };
    (stop(&at, true), stop(&at, false))
}

/// The classes whose memory is freed and kept.
const KEPT: [&str; 7] = [
    "python_free_lists",
    "python_free_blocks",
    "python_free_pools",
    "python_free_arenas",
    "malloc_thread_cache",
    "malloc_bins",
    "malloc_top",
];
/// The classes whose memory is in use by Python.
const LIVE: [&str; 4] =
    ["python_objects", "python_buffers", "python_large_objects", "python_large_buffers"];

#[test]
fn the_founding_question() {
    each(|python| {
        let (before, after) = founding(python, "list_deepcopy_del.py", "del x");
        let more = |name: &str| class(&after, name) as i64 - class(&before, name) as i64;
        let sum = |names: &[&str]| names.iter().map(|name| more(name)).sum::<i64>();
        let rss = u(&after, "rss_bytes") as i64 - u(&before, "rss_bytes") as i64;
        let (kept, live) = (sum(&KEPT), sum(&LIVE));
        // Heads of pools and chunks, and what doesn't divide into blocks.
        let overhead = more("python_pool_overhead") + more("malloc_overhead");
        // What is there and was not before is y, its ints, and what allocators keep.
        let rest = rss - kept - live - overhead;
        assert!(rest.abs() < 256 << 10, "{rest} of {rss} are neither in use nor kept");
        // y: a million ints, and the array of the list.
        let of_int: u64 = if python.version.0 == 2 { 24 } else { 32 };
        let y = 1_000_000 * of_int as i64 + 8_000_000;
        assert!((live - y).abs() < 1 << 20, "{live} bytes in use, not {y}");
        let (dead, holes) = (more("python_free_lists"), more("malloc_bins"));
        if python.version.0 == 2 {
            // The keys of deepcopy's memo: a million ids, 24 bytes each (the head of their blocks
            // aside); and the memo itself.
            assert!((dead - 24_000_000).abs() < 1 << 16, "{dead} bytes of dead ints");
            // How large the holes are depends on what the heap looked like before.
            assert!(holes > 8 << 20, "{holes} bytes of holes");
        } else {
            assert!(kept < 2 << 20, "{kept} bytes kept");
        }
    });
}

#[test]
fn founding_programs_have_names() {
    each(|python| {
        for (name, at) in [
            ("list_copy_clear.py", "del x[:]"),
            ("dict_deepcopy_del.py", "del x"),
            ("lists_deepcopy_clear.py", "del x[:]"),
            ("reuse_after_del.py", "del x"),
        ] {
            founding(python, name, at);
        }
    });
}

/// Libraries with buffers of their own. `STRANDLINE_TEST_PANDAS`: an interpreter that has numpy and
/// pandas; without it, those of the interpreters that have them.
#[test]
fn numpy_and_pandas() {
    let has = |path: &PathBuf| {
        let mut command = Command::new(path);
        let ran = command.args(["-c", "import numpy, pandas"]).output();
        ran.is_ok_and(|o| o.status.success())
    };
    let paths: Vec<PathBuf> = match std::env::var_os("STRANDLINE_TEST_PANDAS") {
        Some(path) => vec![PathBuf::from(path)],
        None => pythons().iter().map(|p| p.path.clone()).filter(has).collect(),
    };
    assert!(!paths.is_empty() || std::env::var_os("CI").is_none(), "no interpreter has pandas");
    if paths.is_empty() {
        eprintln!("no interpreter has numpy and pandas: name one in STRANDLINE_TEST_PANDAS");
    }
    let code = "
import numpy, pandas
array = numpy.ones(5000000)
frame = pandas.DataFrame({'n': range(200000), 's': [str(i) for i in range(200000)]})
grouped = frame.groupby(frame.n % 7).sum()
";
    for path in paths {
        let dir = Dir::new();
        let mut command = Command::new(&path);
        command.arg(dir.file("program.py", program(code)));
        let s = Standing::of(command, dir);
        let census = s.census();
        check(&s, &census, 0.005);
        let arrays = of_type(&census, "numpy.ndarray");
        assert!(arrays >= 40_000_000, "{arrays} bytes of arrays");
    }
}
