//! The verbs that show a profile by call path, which `strandline run --stacks` writes.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use strandline_export::Format;
use strandline_profile::Weight;
use strandline_views::{By, Sort};

/// What to show of a profile.
#[derive(Debug, Subcommand)]
pub enum View {
    /// Sum up a profile: peak, what is left, what was temporary, and who asked for it
    #[command(after_help = REPORT_EXAMPLES, version)]
    Report(ReportOptions),
    /// Show a profile as a call tree
    #[command(after_help = TREE_EXAMPLES, version)]
    Tree(TreeOptions),
    /// Show one figure of a profile by call path, line, function, file, thread, allocator or type
    #[command(after_help = TABLE_EXAMPLES, version)]
    Table(TableOptions),
    /// Show figures of a profile as a whole: sizes, lifetimes, allocators
    #[command(after_help = STATS_EXAMPLES, version)]
    Stats(StatsOptions),
    /// Show what grew and what shrank from one profile to another
    #[command(after_help = DIFF_EXAMPLES, version)]
    Diff(DiffOptions),
    /// Make a flame graph of a profile: one HTML file, to open in a browser
    #[command(after_help = FLAMEGRAPH_EXAMPLES, version)]
    Flamegraph(FlamegraphOptions),
    /// Write a profile in the format of another tool
    #[command(after_help = EXPORT_EXAMPLES, version)]
    Export(ExportOptions),
    /// Look up the names of native functions that a profile doesn't have yet
    #[command(after_help = SYMBOLISE_EXAMPLES, version)]
    Symbolise(SymboliseOptions),
}

const REPORT_EXAMPLES: &str = "\
A profile is a file that `strandline run --stacks` wrote. It can be looked at while the program
runs, and on another machine.

Examples:
  strandline report app.strand
  strandline report app.strand --lines app/cache.py      every line of that file that allocates
  strandline report app.strand --from 2 --to 3.5         of a profile with events: a part of the run
  strandline report app.strand --process 4711 --json -o report.json";

const TREE_EXAMPLES: &str = "\
Calls that only lead to one another share a row. What has less than --min percent is put together.

Examples:
  strandline tree app.strand
  strandline tree app.strand --weight in-use --inverted    who holds what is left, callers below
  strandline tree app.strand --thread MainThread --min 5";

const TABLE_EXAMPLES: &str = "\
Examples:
  strandline table app.strand --by function --sort total
  strandline table app.strand --weight temporary --by line
  strandline table app.strand --by path --csv -o paths.csv";

const STATS_EXAMPLES: &str = "\
Examples:
  strandline stats app.strand
  strandline stats app.strand --replay      of a profile with events
  strandline stats app.strand --json | jq .temporary_share";

const DIFF_EXAMPLES: &str = "\
Rows are matched by the names of functions and files and by line numbers, so the two profiles may
be of different runs, machines and versions of the program.

Examples:
  strandline diff before.strand after.strand
  strandline diff before.strand after.strand --weight in-use --by function
  strandline diff before.strand after.strand --html difference.html";

const FLAMEGRAPH_EXAMPLES: &str = "\
The page has everything in it and asks the network for nothing. Figures, threads, direction and
search are switched in it.

Examples:
  strandline flamegraph app.strand
  strandline flamegraph app.strand --weight in-use --no-source -o page.html";

const EXPORT_EXAMPLES: &str = "\
Examples:
  strandline export app.strand --format pprof -o app.pb.gz       go tool pprof app.pb.gz
  strandline export app.strand --format speedscope -o app.json   for speedscope.app
  strandline export app.strand --format folded --weight in-use
  strandline export app.strand --format parquet -o app.parquet   for DuckDB and its kin";

/// A part of the run, of a profile with events.
#[derive(Debug, Clone, Default, Args)]
pub struct Part {
    /// Only what was allocated from this second of the run on (needs run --stacks --events)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub from: Option<f64>,
    /// Only until this second: its end is the end of all figures (needs run --stacks --events)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub to: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('s').trim().parse() {
        Ok(n) if (0.0..=1e9).contains(&n) => Ok(n),
        _ => Err("a number of seconds since the start of the run, e.g. 1.5".to_owned()),
    }
}

const SYMBOLISE_EXAMPLES: &str = "\
A run with --native looks names up when it ends. What it did not find can be found later, or on
another machine: libraries and their debug files are told by their build ids.

Examples:
  strandline symbolise app.strand --dir /srv/symbols
  strandline symbolise app.strand --dir ./sysroot --dir ./debug -o named.strand";

/// Options of `symbolise`.
#[derive(Debug, Args)]
pub struct SymboliseOptions {
    /// The profile
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Look for libraries and debug files in DIR first, then where they were; repeatable
    #[arg(long = "dir", value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Write the profile to OUT instead of FILE
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Overwrite OUT if there is one
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Options of `flamegraph`.
#[derive(Debug, Args)]
pub struct FlamegraphOptions {
    /// The profile
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the page to OUT [default: FILE with the ending .html]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Overwrite the page if there is one
    #[arg(long)]
    pub force: bool,
    /// A part of the run
    #[command(flatten)]
    pub part: Part,
    /// The figure that is shown first
    #[arg(long, value_name = "FIGURE", default_value = "peak", value_parser = weight())]
    pub weight: Weight,
    /// Leave the text of source lines out
    #[arg(long)]
    pub no_source: bool,
    /// Title of the page
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub struct ExportOptions {
    /// The profile
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The format
    #[arg(short, long, value_name = "FORMAT", value_parser = format())]
    pub format: Format,
    /// Write to OUT instead of stdout
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Overwrite OUT if there is one
    #[arg(long)]
    pub force: bool,
    /// A part of the run
    #[command(flatten)]
    pub part: Part,
    /// folded: the figure; speedscope: the one that is shown first
    #[arg(long, value_name = "FIGURE", default_value = "peak", value_parser = weight())]
    pub weight: Weight,
    /// Only the process with this id
    #[arg(long, value_name = "PID")]
    pub process: Option<u32>,
}

/// A parser of the words for formats.
fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name))
        .map(|name| Format::of_name(&name).unwrap_or(Format::Folded))
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct ReportOptions {
    /// The profile and where to write
    #[command(flatten)]
    pub common: Common,
    /// Show this source file line by line: its name, or the last parts of it
    #[arg(long, value_name = "SOURCE")]
    pub lines: Option<String>,
    /// Number of call paths, lines and threads in each list
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "lines")]
    pub top: usize,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `tree`.
#[derive(Debug, Args)]
pub struct TreeOptions {
    /// The profile and where to write
    #[command(flatten)]
    pub common: Common,
    /// The figure
    #[arg(long, value_name = "FIGURE", default_value = "peak", value_parser = weight())]
    pub weight: Weight,
    /// Start with what allocates, and show its callers below it
    #[arg(long)]
    pub inverted: bool,
    /// Of one thread only, by name or by the kernel's id
    #[arg(long, value_name = "NAME")]
    pub thread: Option<String>,
    /// Number of levels
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub depth: u32,
    /// Put together what has less than this percent of all
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = percent)]
    pub min: f64,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `table`.
#[derive(Debug, Args)]
pub struct TableOptions {
    /// The profile and where to write
    #[command(flatten)]
    pub common: Common,
    /// The figure
    #[arg(long, value_name = "FIGURE", default_value = "peak", value_parser = weight())]
    pub weight: Weight,
    /// What the rows stand for
    #[arg(long, value_name = "ROWS", default_value = "line", value_parser = by(&By::ALL))]
    pub by: By,
    /// Largest first, by this: own bytes, bytes with callees (total), or own blocks
    #[arg(long, value_name = "COLUMN", default_value = "own", value_parser = sort())]
    pub sort: Sort,
    /// Of one thread only, by name or by the kernel's id
    #[arg(long, value_name = "NAME")]
    pub thread: Option<String>,
    /// Number of rows; 0: all [default: 20, with --json and --csv all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    /// Report as comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

/// Options of `stats`.
#[derive(Debug, Args)]
pub struct StatsOptions {
    /// The profile and where to write
    #[command(flatten)]
    pub common: Common,
    /// Go through all events instead: what they add up to, and whether that is what was counted
    #[arg(long, conflicts_with_all = ["from", "to", "top"])]
    pub replay: bool,
    /// Number of call paths in each list
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: usize,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffOptions {
    /// The first profile
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// The second profile
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// The figure
    #[arg(long, value_name = "FIGURE", default_value = "in-use", value_parser = weight())]
    pub weight: Weight,
    /// What the rows stand for
    #[arg(long, value_name = "ROWS", default_value = "path",
          value_parser = by(&[By::Path, By::Line, By::Function, By::File, By::Type]))]
    pub by: By,
    /// Number of rows; 0: all [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    /// Write a flame graph of the difference to PAGE, which must not exist, as well
    #[arg(long, value_name = "PAGE")]
    pub html: Option<PathBuf>,
    /// Write the report to FILE, which must not exist, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What all views of one profile have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// The profile, which `strandline run --stacks` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A part of the run
    #[command(flatten)]
    pub part: Part,
    /// Show one process only [default: all together]
    #[arg(long, value_name = "PID")]
    pub process: Option<u32>,
    /// Write the report to FILE, which must not exist, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A parser that knows its words, so that help and errors list them.
fn word<T: Clone + Send + Sync + 'static>(
    names: Vec<&'static str>,
    of_name: fn(&str) -> Option<T>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names)
        .try_map(move |name| of_name(&name).ok_or_else(|| format!("{name} is not known")))
}

fn weight() -> impl TypedValueParser<Value = Weight> {
    word(Weight::ALL.map(Weight::name).to_vec(), Weight::of_name)
}

fn by(which: &[By]) -> impl TypedValueParser<Value = By> {
    word(which.iter().map(|by| by.name()).collect(), By::of_name)
}

fn sort() -> impl TypedValueParser<Value = Sort> {
    word(Sort::ALL.map(Sort::name).to_vec(), Sort::of_name)
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(n) if (0.0..=100.0).contains(&n) => Ok(n),
        _ => Err("a share is a number of percent, from 0 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{parse, Command};

    fn view(line: &[&str]) -> Result<View, i32> {
        let words = ["strandline"].iter().chain(line).map(|w| (*w).into()).collect();
        match parse(words) {
            Ok(Command::View(view)) => Ok(view),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.exit_code()),
        }
    }

    #[test]
    fn words_stand_for_values() {
        let View::Tree(o) = view(&["tree", "f", "--weight", "in-use", "--min", "2.5%"]).unwrap()
        else {
            panic!()
        };
        assert_eq!((o.weight, o.min, o.depth), (Weight::InUse, 2.5, 20));
        let View::Table(o) = view(&["table", "f", "--by", "thread", "--sort", "blocks"]).unwrap()
        else {
            panic!()
        };
        assert_eq!((o.by, o.sort, o.top), (By::Thread, Sort::Blocks, None));
        let View::Diff(o) = view(&["diff", "a", "b"]).unwrap() else { panic!() };
        assert_eq!((o.by, o.weight), (By::Path, Weight::InUse));
    }

    #[test]
    fn usage_errors_are_code_2() {
        for line in [
            &["report"][..],
            &["report", "a", "b"],
            &["report", "a", "--top", "x"],
            &["tree", "a", "--weight", "mass"],
            &["tree", "a", "--min", "101"],
            &["tree", "a", "--min", "-1"],
            &["table", "a", "--csv", "--json"],
            &["table", "a", "--by", "moon"],
            &["diff", "a"],
            &["diff", "a", "b", "--by", "thread"],
            &["stats", "a", "--process", "x"],
            &["stats", "a", "--replay", "--from", "1"],
            &["tree", "a", "--from", "-1"],
            &["tree", "a", "--to", "soon"],
        ] {
            assert_eq!(view(line).unwrap_err(), 2, "{line:?}");
        }
    }
}
