//! The verbs that show a profile by call path, on files as `strandline run --stacks` writes them.

#[path = "../../strandline-views/tests/common/mod.rs"]
mod sample;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sample::{later, run_of, server, worker};
use serde_json::Value;
use strandline_profile::{write, Profile, Weight};

/// A directory of its own for a test, removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("strandline-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn profile(&self, name: &str, profile: &Profile) -> PathBuf {
        self.file(name, &bytes(profile))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bytes(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(profile, &mut bytes).unwrap();
    bytes
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.args(args).stdin(Stdio::null());
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// What it prints, if it has nothing to complain about.
fn good(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its exit code and the one line that it complains with.
fn bad(args: &[&str]) -> (i32, String) {
    let output = run(args);
    assert_eq!(output.stdout, b"", "{args:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_verb_shows_it_as_text_and_json() {
    let dir = Dir::new("views-verbs");
    let profile = run_of(vec![server(), worker()]);
    let file = dir.profile("shop.strand", &profile);
    let file = word(&file);
    let text = good(&["report", file]);
    assert!(text.contains("Process 4711 (Python 3.13.1)"), "{text}");
    assert!(
        text.contains(&format!("strandline report {file} --lines /srv/shop/cache.py")),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "colours without a terminal");
    assert!(good(&["report", file, "--lines", "cache.py"]).contains("Filename: /srv/shop/cache.py"));
    assert!(good(&["tree", file, "--inverted"]).contains("JSONDecoder.raw_decode"));
    assert!(good(&["tree", file, "--thread", "loader-0"]).contains("fetch"));
    assert!(good(&["table", file, "--by", "domain"]).contains("the interpreter itself"));
    assert!(good(&["table", file, "--csv"]).starts_with("file,line,function,bytes,"));
    assert!(good(&["stats", file]).contains("Allocations by size"));
    let forced = command(&["report", file]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(forced.stdout.contains(&0x1b));

    for (args, schema) in [
        (&["report", file][..], "strandline-report/1"),
        (&["report", file, "--lines", "cache.py"], "strandline-lines/1"),
        (&["tree", file], "strandline-tree/1"),
        (&["table", file], "strandline-table/1"),
        (&["stats", file], "strandline-stats/1"),
        (&["diff", file, file], "strandline-diff/1"),
    ] {
        let json: Value = serde_json::from_str(&good(&[args, &["--json"]].concat())).unwrap();
        assert_eq!(json["schema"], schema);
    }
    let one: Value =
        serde_json::from_str(&good(&["report", file, "--process", "4720", "--json"])).unwrap();
    assert_eq!(one["processes"].as_array().unwrap().len(), 1);
}

#[test]
fn tables_add_up_to_the_profile() {
    let dir = Dir::new("views-sums");
    let profile = run_of(vec![server(), worker()]);
    let file = dir.profile("shop.strand", &profile);
    let paths = || profile.processes.iter().flat_map(|p| &p.paths);
    for weight in Weight::ALL {
        let whole: u64 = paths().map(|p| weight.of(p).bytes).sum();
        for by in ["path", "line", "function", "file", "thread", "domain"] {
            let args = ["table", word(&file), "--weight", weight.name(), "--by", by, "--json"];
            let json: Value = serde_json::from_str(&good(&args)).unwrap();
            let rows = json["rows"].as_array().unwrap();
            let sum: u64 = rows.iter().map(|row| row["own"]["bytes"].as_u64().unwrap()).sum();
            assert_eq!((sum, &json["total"]["bytes"]), (whole, &whole.into()), "{args:?}");
        }
    }
}

#[test]
fn two_profiles_are_compared() {
    let dir = Dir::new("views-diff");
    let before = dir.profile("before.strand", &run_of(vec![server()]));
    let after = dir.profile("after.strand", &later());
    let text = good(&["diff", word(&before), word(&after), "--weight", "peak"]);
    assert!(text.contains("draw") || text.contains("walk"), "{text}");
    let same = good(&["diff", word(&before), word(&before)]);
    assert!(same.contains("no difference"), "{same}");
}

#[test]
fn a_capture_of_a_running_program_says_so() {
    let dir = Dir::new("views-running");
    let mut profile = run_of(vec![server()]);
    profile.meta.finished = false;
    let file = dir.profile("now.strand", &profile);
    for verb in ["report", "tree", "table", "stats"] {
        assert!(good(&[verb, word(&file)]).contains("STILL RAN"), "{verb}");
    }
}

#[test]
fn what_cannot_be_shown_is_one_line() {
    let dir = Dir::new("views-errors");
    let file = dir.profile("shop.strand", &run_of(vec![server()]));
    let script = dir.file("app.py", b"print('hello')\n");
    let (file, script, there) = (word(&file), word(&script), word(&dir.0));
    let missing = dir.0.join("gone.strand");
    let whole = std::fs::read(file).unwrap();
    let stump = dir.file("stump.strand", &whole[..14]);
    for (args, text) in [
        (&["report", word(&missing)][..], "No such file"),
        (&["tree", there], "Is a directory"),
        (&["stats", script], "this is not a strandline profile"),
        (&["table", word(&stump)], "damaged"),
        (&["diff", file, word(&missing)], "No such file"),
        (&["report", file, "--process", "7"], "it has 4711"),
        (&["tree", file, "--thread", "x"], "it has MainThread, loader-0"),
        (&["report", file, "--lines", "x.py"], "the files with the most are"),
        (&["stats", file, "-o", script], "exists already"),
    ] {
        let (code, error) = bad(args);
        assert_eq!(code, 125, "{args:?}: {error}");
        assert!(error.contains(text) && error.lines().count() == 1, "{args:?}: {error}");
    }
    assert_eq!(bad(&["tree", file, "--weight", "mass"]).0, 2);
    assert_eq!(bad(&["report"]).0, 2);
}

#[test]
fn a_capture_that_was_cut_off_is_shown_with_its_doubts() {
    let dir = Dir::new("views-cut");
    let whole = bytes(&run_of(vec![server(), worker()]));
    let file = dir.file("cut.strand", &whole[..whole.len() - 40]);
    for verb in ["report", "tree", "table", "stats"] {
        let output = run(&[verb, word(&file)]);
        assert!(output.status.success(), "{output:?}");
        let doubts = String::from_utf8(output.stderr).unwrap();
        assert!(doubts.starts_with("strandline: ") && doubts.contains("cut off"), "{doubts}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("MiB"));
    }
    let output = run(&["report", word(&file), "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["run"]["doubts"][0].as_str().unwrap().contains("cut off"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = Dir::new("views-pipe");
    let file = dir.profile("shop.strand", &run_of(vec![server()]));
    for verb in ["report", "tree", "table", "stats"] {
        let mut child = command(&[verb, word(&file)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{verb}: {output:?}");
    }
}
