//! The text of profiles that were made by hand, against golden files. `STRANDLINE_BLESS=1 cargo
//! test -p strandline-views` writes them anew: look at the difference before it is kept.

mod common;

use std::path::Path as FilePath;

use common::*;
use strandline_profile::*;
use strandline_report::Sources;
use strandline_views::*;

const CACHE: &str = "\
import json


class Cache:
    def load(self, path):
        with open(path) as f:
            self.data = json.load(f)
        self.index = {k: i for i, k in enumerate(self.data)}
        return [line for line in self.data]
";

struct Given;

impl Sources for Given {
    fn bytes(&self, file: &str) -> Option<Vec<u8>> {
        (file == "/srv/shop/cache.py").then(|| CACHE.as_bytes().to_vec())
    }
}

fn look() -> text::Look {
    text::Look { cwd: Some("/srv/shop".into()), file: "shop.strand".into(), ..Default::default() }
}

fn golden(name: &str, text: &str) {
    for line in text.lines() {
        assert_eq!(line.trim_end(), line, "{name}: white space at the end");
    }
    let path = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == wanted, "{name} differs; it is now:\n{text}");
}

fn tree(profile: &Profile, change: impl FnOnce(&mut TreeOptions)) -> String {
    let mut options = TreeOptions {
        weight: Weight::Peak,
        inverted: false,
        thread: None,
        depth: 20,
        min_percent: 1.0,
    };
    change(&mut options);
    let merged = Merged::new(profile, None).unwrap();
    text::tree(&CallTree::new(&merged, &options), &look())
}

#[test]
fn a_report_sums_up() {
    let profile = run_of(vec![server()]);
    let merged = Merged::new(&profile, None).unwrap();
    golden("report.txt", &text::report(&Report::new(&merged, 5, &Given), &look()));
    let narrow = text::Look { width: 72, ..look() };
    let text = text::report(&Report::new(&merged, 3, &Given), &narrow);
    golden("report_narrow.txt", &text);
    let body = text.split("What next").next().unwrap();
    assert!(body.lines().all(|line| line.chars().count() <= 72));
}

#[test]
fn several_processes_are_added_up_or_chosen() {
    let profile = run_of(vec![server(), worker()]);
    let merged = Merged::new(&profile, None).unwrap();
    golden("report_processes.txt", &text::report(&Report::new(&merged, 3, &Given), &look()));
    let merged = Merged::new(&profile, Some(4720)).unwrap();
    golden("report_worker.txt", &text::report(&Report::new(&merged, 3, &Given), &look()));
    let error = Merged::new(&profile, Some(1)).unwrap_err().to_string();
    assert_eq!(error, "the profile has no process 1; it has 4711, 4720");
}

#[test]
fn a_run_that_goes_on_says_so() {
    let mut profile = run_of(vec![worker()]);
    profile.meta.finished = false;
    profile.meta.exit_code = None;
    profile.processes[0].state = State::Running;
    let merged = Merged::new(&profile, None).unwrap();
    golden("report_running.txt", &text::report(&Report::new(&merged, 3, &Given), &look()));
}

#[test]
fn nothing_recorded_is_no_failure() {
    let mut empty = Builder::new();
    empty.process().pid = 5;
    for (name, processes) in
        [("report_empty.txt", vec![empty.finish()]), ("report_none.txt", vec![])]
    {
        let mut profile = run_of(processes);
        profile.meta.exit_code = None;
        profile.meta.signal = Some(9);
        let merged = Merged::new(&profile, None).unwrap();
        golden(name, &text::report(&Report::new(&merged, 3, &Given), &look()));
        text::stats(&Stats::new(&merged, 3), &look());
    }
}

#[test]
fn a_files_lines_have_a_ledger() {
    let profile = run_of(vec![server()]);
    let merged = Merged::new(&profile, None).unwrap();
    let ledger = Ledger::new(&merged, "shop/cache.py", &Given).unwrap();
    golden("lines.txt", &text::lines(&ledger, &look()));
    let ledger = Ledger::new(&merged, "tree.py", &Given).unwrap();
    golden("lines_no_source.txt", &text::lines(&ledger, &look()));
    let error = Ledger::new(&merged, "ache.py", &Given).unwrap_err().to_string();
    assert!(error.contains("/srv/shop/fetch.py, /usr/lib/python3.13/json/decoder.py"), "{error}");
}

#[test]
fn trees_grow_both_ways() {
    let profile = run_of(vec![server(), worker()]);
    golden("tree.txt", &tree(&profile, |_| ()));
    golden("tree_inverted.txt", &tree(&profile, |o| o.inverted = true));
    golden("tree_flat.txt", &tree(&profile, |o| (o.depth, o.weight) = (1, Weight::Temporary)));
    golden("tree_thread.txt", &tree(&profile, |o| o.thread = Some("loader-0".into())));
    let options = TreeOptions {
        weight: Weight::Peak,
        inverted: false,
        thread: None,
        depth: 9,
        min_percent: 0.0,
    };
    let merged = Merged::new(&profile, None).unwrap();
    let boxes = text::Look { boxes: true, colour: true, ..look() };
    golden("tree_terminal.txt", &text::tree(&CallTree::new(&merged, &options), &boxes));
    assert!(merged.check_thread("4713").is_ok());
    let error = merged.check_thread("4712").unwrap_err().to_string();
    assert_eq!(error, "the profile has no thread \"4712\"; it has MainThread, loader-0");
}

#[test]
fn tables_by_all_there_is() {
    let profile = run_of(vec![server(), worker()]);
    let merged = Merged::new(&profile, None).unwrap();
    let mut all = String::new();
    for by in By::ALL {
        let table = Table::new(&merged, Weight::Allocated, by, Sort::Total, 6, None).unwrap();
        all.push_str(&text::table(&table, &look()));
        all.push('\n');
        all.push_str(&text::table_csv(&table));
        all.push('\n');
    }
    golden("tables.txt", &all);
}

#[test]
fn statistics_have_histograms() {
    let profile = run_of(vec![server()]);
    let merged = Merged::new(&profile, None).unwrap();
    golden("stats.txt", &text::stats(&Stats::new(&merged, 3), &look()));
}

#[test]
fn a_difference_matches_texts() {
    let (before, after) = (run_of(vec![server()]), later());
    let merged = Merged::of(&[&before, &after], None).unwrap();
    let diff = |by, top| text::diff(&Diff::new(&merged, Weight::InUse, by, top), &look());
    golden("diff.txt", &diff(By::Path, 10));
    golden("diff_functions.txt", &diff(By::Function, 2));
    let types = Diff::by_type(&merged, 10).unwrap();
    golden("diff_types.txt", &text::diff(&types, &look()));
    let peak = Diff::new(&merged, Weight::Peak, By::Path, 20);
    golden("diff_peak.txt", &text::diff(&peak, &look()));
    let same = Merged::of(&[&before, &before], None).unwrap();
    golden("diff_same.txt", &text::diff(&Diff::new(&same, Weight::Peak, By::Line, 9), &look()));
}
