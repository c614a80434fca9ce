//! The command line.
//!
//! Options of strandline end where the program begins: at the first word that is none, at `-m`,
//! `-c` or `--`. All that follows belongs to the program, whatever it looks like. clap has no
//! such rule, so the words are divided first and clap only sees ours.

pub mod package;
pub mod views;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::remedies;

/// Memory profiler for Python: what every line allocates, holds and strands.
#[derive(Debug, Parser)]
#[command(name = "strandline", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a program and report the memory of its lines
    #[command(override_usage = USAGE, after_help = EXAMPLES, version)]
    Run(RunOptions),
    /// Say what every resident byte of a Python process is
    #[command(override_usage = CENSUS_USAGE, after_help = CENSUS_EXAMPLES, version)]
    Census(CensusOptions),
    /// Say why the memory of a process stays, and what would bring it back
    #[command(override_usage = EXPLAIN_USAGE, after_help = EXPLAIN_EXAMPLES, version)]
    Explain(ExplainOptions),
    /// Measure what would give memory back: the same program under each remedy
    #[command(override_usage = REMEDIES_USAGE, after_help = REMEDIES_EXAMPLES, version)]
    Remedies(RemediesOptions),
    /// Show a profile by call path
    #[command(flatten)]
    View(views::View),
    #[command(flatten)]
    Package(package::Package),
}

const CENSUS_USAGE: &str = "strandline census [OPTIONS] PID
       strandline census [OPTIONS] --core FILE [--exe FILE]
       strandline census [OPTIONS] FILE.json [--diff FILE.json]";

const CENSUS_EXAMPLES: &str = "\
The process needs no preparation, runs no code of strandline's, and is not written to. It stands
still while its memory is copied (some 150 ms per GiB) and runs on.

Examples:
  strandline census 4711
  strandline census 4711 --json -o before.json
  strandline census before.json --diff after.json
  strandline census --core core.4711";

const EXPLAIN_USAGE: &str = "strandline explain [OPTIONS] PID
       strandline explain [OPTIONS] --core FILE [--exe FILE]
       strandline explain [OPTIONS] FILE.json...
       strandline explain [OPTIONS] FILE.strand";

const EXPLAIN_EXAMPLES: &str = "\
One look tells what is in use, what waits for the collector and what allocators keep. Two or more
looks tell what grows from what is used again.

Examples:
  strandline explain 4711
  strandline explain 4711 --every 10s --times 3
  strandline explain --core core.4711
  strandline explain before.json after.json     censuses that were written with --holders --json
  strandline explain app.strand                 the profile of a run with --stacks";

/// Options of `explain`.
#[derive(Debug, Args)]
pub struct ExplainOptions {
    /// A process, censuses that were written with --json (the oldest first), or a profile
    #[arg(value_name = "PID|FILE", required_unless_present = "core")]
    pub targets: Vec<PathBuf>,
    /// Read a core file
    #[arg(long, value_name = "FILE", conflicts_with = "targets")]
    pub core: Option<PathBuf>,
    /// Executable that the core file is of, if it isn't where it was
    #[arg(long, value_name = "FILE", requires = "core", conflicts_with = "targets")]
    pub exe: Option<PathBuf>,
    /// Time between looks: 10s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub every: Duration,
    /// Number of looks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub times: u32,
    /// How the process is read.
    #[command(flatten)]
    pub reading: Reading,
    /// Write the report to FILE, which must not exist, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// `10s`, `500ms`, `2m`, `1h`; without a unit: seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = match &text[end..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("{other:?} is no unit: ms, s, m or h")),
    };
    let number = text[..end].parse::<f64>().map_err(|_| "a time is a number and a unit: 10s")?;
    Duration::try_from_secs_f64(number * unit).map_err(|e| e.to_string())
}

/// How a process is read.
#[derive(Debug, Args)]
pub struct Reading {
    /// Never stop the process; what changes while it is read is counted as torn
    #[arg(long)]
    pub no_pause: bool,
    /// Copy the process to disk (TMPDIR, /var/tmp) if it is larger than this [default: 90 % of what is free]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(..1 << 40))]
    pub memory: Option<u64>,
    /// For how many of the pinning and of the largest objects to look who refers to them
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub paths: usize,
}

/// Options of `census`.
#[derive(Debug, Args)]
pub struct CensusOptions {
    /// A process, or a census that was written with --json
    #[arg(value_name = "PID|FILE", required_unless_present = "core")]
    pub target: Option<PathBuf>,
    /// Read a core file
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub core: Option<PathBuf>,
    /// Executable that the core file is of, if it isn't where it was
    #[arg(long, value_name = "FILE", requires = "core", conflicts_with = "target")]
    pub exe: Option<PathBuf>,
    /// Show what changed from the census FILE to this one
    #[arg(long, value_name = "FILE")]
    pub diff: Option<PathBuf>,
    /// How the process is read.
    #[command(flatten)]
    pub reading: Reading,
    /// Look for the objects that hold most, and for garbage: what `explain` needs
    #[arg(long)]
    pub holders: bool,
    /// Write the report to FILE, which must not exist, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Report as JSON
    #[arg(long, conflicts_with = "diff")]
    pub json: bool,
    /// Number of types in the list
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub types: usize,
    /// Number of arenas whose holders are named
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub pins: usize,
    /// Show the blocks of the small-object allocator by size
    #[arg(long)]
    pub sizes: bool,
}

const REMEDIES_USAGE: &str = "strandline remedies [OPTIONS] SCRIPT [ARGS]...
       strandline remedies [OPTIONS] -m MODULE [ARGS]...
       strandline remedies [OPTIONS] -c CODE [ARGS]...
       strandline remedies [OPTIONS] -- COMMAND [ARGS]...
       strandline remedies PID --trim|--collect|--pool-trim";

const REMEDIES_EXAMPLES: &str = "\
The program runs once as it is and once under each remedy that applies, one after the other. With
a process id, which has to be a Python that runs under `strandline run`, one remedy is applied to
that process, and what it gave back is shown.

Examples:
  strandline remedies app.py --verbose
  strandline remedies --only malloc-trim,trim-threshold --repeat 3 -- python3 app.py
  strandline remedies 4711 --trim";

/// Options of `remedies`.
#[derive(Debug, Args)]
pub struct RemediesOptions {
    /// A process that runs under `strandline run`
    #[arg(value_name = "PID", requires = "action")]
    pub pid: Option<u32>,
    /// Give back what malloc can: malloc_trim(0) in the process
    #[arg(long, group = "action", requires = "pid")]
    pub trim: bool,
    /// Free what waits for the collector: gc.collect() in the process
    #[arg(long, group = "action", requires = "pid")]
    pub collect: bool,
    /// Give back the pages of free pools (CPython 3.10 and later)
    #[arg(long, group = "action", requires = "pid")]
    pub pool_trim: bool,
    /// Try these remedies only, by name, separated by commas; repeatable
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "action")]
    pub only: Vec<String>,
    /// Run the program N times under each and show medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..1000), conflicts_with = "action")]
    pub repeat: u32,
    /// Interpreter for SCRIPT, -m and -c [default: the active venv's, else python3 or python on PATH]
    #[arg(long, value_name = "PATH", conflicts_with = "action")]
    pub python: Option<PathBuf>,
    /// Write the report to FILE, which must not exist, instead of stderr (stdout with a PID)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

const USAGE: &str = "strandline run [OPTIONS] SCRIPT [ARGS]...
       strandline run [OPTIONS] -m MODULE [ARGS]...
       strandline run [OPTIONS] -c CODE [ARGS]...
       strandline run [OPTIONS] -- COMMAND [ARGS]...";

const EXAMPLES: &str = "\
Options of strandline come before the program; all that follows belongs to the program. Its
output, its input and its exit code are what they are without strandline; the report goes to
stderr or to a file. strandline's own failures exit with 125.

Examples:
  strandline run app.py --verbose       functions under @profile, and the whole program
  strandline run --function 'pkg.mod:Class.*' -m pkg
  strandline run --json -o run.json -- python3.8 -X dev app.py";

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// Interpreter for SCRIPT, -m and -c [default: the active venv's, else python3 or python on PATH]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Write the report to FILE, which must not exist, instead of stderr; with --stacks: write
    /// the profile to FILE
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
    /// Don't follow child processes
    #[arg(long)]
    pub no_follow: bool,
    /// Record who allocates, by call path, into strandline-SCRIPT.PID.strand (see strandline report)
    #[arg(long)]
    pub stacks: bool,
    /// --stacks: record every single allocation and free with its time, too
    #[arg(long, requires = "stacks")]
    pub events: bool,
    /// --stacks: with the functions of C, C++ and Rust code
    #[arg(long, requires = "stacks")]
    pub native: bool,
    /// --stacks: with the asyncio tasks that await the one that runs
    #[arg(long, requires = "stacks")]
    pub async_stacks: bool,
    /// --stacks: look up at the end what types of objects are in use (see diff --by type)
    #[arg(long, requires = "stacks")]
    pub types: bool,
    /// --stacks: overwrite the profile's file if there is one
    #[arg(long, requires = "stacks")]
    pub force: bool,
    /// --stacks: call a block temporary that is freed within the next N allocations of its thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=15), requires = "stacks")]
    pub temporary: u32,
    /// Show this function as if it had @profile: NAME or MODULE:NAME, with * and ?; repeatable
    #[arg(long = "function", value_name = "PATTERN", value_parser = pattern)]
    pub functions: Vec<String>,
    /// Show every function of the program's own files
    #[arg(long)]
    pub all: bool,
    /// Say of lines that move 1 MiB or more where what they freed is
    #[arg(long)]
    pub explain: bool,
    /// Take a census of the main process when it is about to exit
    #[arg(long)]
    pub census_at_exit: bool,
    /// Take a census of the main process where its RSS is highest
    #[arg(long)]
    pub census_at_peak: bool,
    /// Number of source lines in the summary's lists
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: usize,
}

fn pattern(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('\n') {
        return Err("a pattern is one line and not empty".to_owned());
    }
    Ok(text.to_owned())
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A script, `-` for stdin, and its arguments.
    Script(OsString, Vec<OsString>),
    /// A module and its arguments.
    Module(OsString, Vec<OsString>),
    /// Code and its arguments.
    Code(OsString, Vec<OsString>),
    /// A command with an interpreter of its own, at least one word.
    Command(OsString, Vec<OsString>),
}

/// A command line that makes sense.
#[derive(Debug)]
pub enum Command {
    /// `run`
    Run(Parsed),
    /// `census`
    Census(CensusOptions),
    /// `explain`
    Explain(ExplainOptions),
    /// `remedies` of a process
    RemedyOf(RemediesOptions),
    /// `remedies` of a program
    Remedies(RemediesOptions, Program),
    /// `report`, `tree` and the other verbs that show a profile by call path
    View(views::View),
    /// What the Python package asks for
    Package(package::Package),
}

/// What `run` is to do.
#[derive(Debug)]
pub struct Parsed {
    /// strandline's own options.
    pub options: RunOptions,
    /// The program.
    pub program: Program,
}

/// Parses a whole command line, the name of the command included.
pub fn parse(words: Vec<OsString>) -> Result<Command, clap::Error> {
    let verb = words.get(1).and_then(|w| w.to_str()).unwrap_or_default();
    let (ours, program) = match verb {
        "run" => divide(&words, RunOptions::augment_args),
        "remedies" if !names_process(&words) => divide(&words, RemediesOptions::augment_args),
        _ => (words.clone(), Found::Nothing),
    };
    match Cli::try_parse_from(ours)?.verb {
        Verb::Census(options) => Ok(Command::Census(options)),
        Verb::Explain(options) => Ok(Command::Explain(options)),
        Verb::View(view) => Ok(Command::View(view)),
        Verb::Package(package) => Ok(Command::Package(package)),
        Verb::Run(options) => {
            let patterns: usize = options.functions.iter().map(|p| p.len() + 1).sum();
            if patterns > strandline_capture::layout::MAX_PATTERNS {
                let text = "the --function patterns are too long together";
                return Err(usage(verb, ErrorKind::TooManyValues, text));
            }
            let program = program_of(verb, program, options.python.is_some())?;
            Ok(Command::Run(Parsed { options, program }))
        }
        Verb::Remedies(options) if options.pid.is_some() => Ok(Command::RemedyOf(options)),
        Verb::Remedies(options) => {
            if let Some(name) = options.only.iter().find(|name| !remedies::is_known(name)) {
                let text =
                    format!("no remedy is called '{name}'; there are: {}", remedies::names());
                return Err(usage(verb, ErrorKind::InvalidValue, &text));
            }
            let program = program_of(verb, program, options.python.is_some())?;
            Ok(Command::Remedies(options, program))
        }
    }
}

/// `remedies PID`: the first word that is no option is a number.
fn names_process(words: &[OsString]) -> bool {
    let mut rest = words.iter().skip(2);
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        if bytes.first() != Some(&b'-') {
            return !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
        }
        if bytes == b"--" || form(bytes).is_some() {
            return false;
        }
        if takes_value(word, RemediesOptions::augment_args) {
            rest.next();
        }
    }
    false
}

/// The program that was found, or what is wrong with it.
fn program_of(verb: &str, found: Found, has_python: bool) -> Result<Program, clap::Error> {
    match found {
        Found::Program(Program::Command(..)) if has_python => Err(usage(
            verb,
            ErrorKind::ArgumentConflict,
            "--python doesn't go with `-- COMMAND`, which names its own interpreter",
        )),
        Found::Program(program) => Ok(program),
        Found::Nothing => Err(usage(
            verb,
            ErrorKind::MissingRequiredArgument,
            "a program is missing: SCRIPT, -m MODULE, -c CODE or -- COMMAND",
        )),
        Found::NoValue(option) => {
            Err(usage(verb, ErrorKind::MissingRequiredArgument, &format!("{option} needs a value")))
        }
    }
}

fn usage(verb: &str, kind: ErrorKind, text: &str) -> clap::Error {
    let mut command = Cli::command();
    command.build();
    match command.find_subcommand_mut(verb) {
        Some(of_verb) => of_verb.error(kind, text),
        None => command.error(kind, text),
    }
}

/// Adds the options of a verb to a command.
type Augment = fn(clap::Command) -> clap::Command;

enum Found {
    Nothing,
    NoValue(&'static str),
    Program(Program),
}

/// Divides `strandline run ...` (or another verb that runs a program) into our words and the program.
fn divide(words: &[OsString], options: Augment) -> (Vec<OsString>, Found) {
    let mut ours: Vec<OsString> = words.iter().take(2).cloned().collect();
    let mut rest = words.iter().skip(2);
    while let Some(word) = rest.next() {
        let bytes = word.as_bytes();
        let mut take_rest = || rest.by_ref().cloned().collect::<Vec<_>>();
        if bytes == b"--" {
            let mut command = take_rest().into_iter();
            let found = match command.next() {
                Some(name) => Found::Program(Program::Command(name, command.collect())),
                None => Found::NoValue("--"),
            };
            return (ours, found);
        }
        if let Some((option, make)) = form(bytes) {
            let attached = bytes.get(2..).filter(|v| !v.is_empty());
            let mut after = take_rest().into_iter();
            let value = attached.map(|v| OsStr::from_bytes(v).to_owned()).or_else(|| after.next());
            let found = match value {
                Some(value) => Found::Program(make(value, after.collect())),
                None => Found::NoValue(option),
            };
            return (ours, found);
        }
        if bytes.first() != Some(&b'-') || bytes == b"-" {
            let script = word.clone();
            return (ours, Found::Program(Program::Script(script, take_rest())));
        }
        ours.push(word.clone());
        if takes_value(word, options) {
            ours.extend(rest.next().cloned());
        }
    }
    (ours, Found::Nothing)
}

type Make = fn(OsString, Vec<OsString>) -> Program;

/// `-m` and `-c`, their value attached or not, as Python takes them.
fn form(word: &[u8]) -> Option<(&'static str, Make)> {
    match word.get(..2)? {
        b"-m" => Some(("-m", Program::Module)),
        b"-c" => Some(("-c", Program::Code)),
        _ => None,
    }
}

/// True if the value of the option `word` is the next word, according to clap's own list.
fn takes_value(word: &OsStr, options: Augment) -> bool {
    let command = options(clap::Command::new("verb"));
    let takes = command.get_arguments().filter(|a| a.get_action().takes_values()).any(|a| {
        let long = a.get_long().map(|l| format!("--{l}"));
        let short = a.get_short().map(|s| format!("-{s}"));
        [long, short].into_iter().flatten().any(|name| word == name.as_str())
    });
    takes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Parsed, clap::Error> {
        let words = ["strandline", "run"].iter().chain(line).map(OsString::from).collect();
        match parse(words)? {
            Command::Run(parsed) => Ok(parsed),
            other => panic!("{other:?} came of `run`"),
        }
    }

    fn census(line: &[&str]) -> Result<CensusOptions, clap::Error> {
        let words = ["strandline", "census"].iter().chain(line).map(OsString::from).collect();
        match parse(words)? {
            Command::Census(options) => Ok(options),
            other => panic!("{other:?} came of `census`"),
        }
    }

    #[test]
    fn a_census_has_one_target() {
        assert_eq!(census(&["4711"]).unwrap().target, Some("4711".into()));
        let o = census(&["--core", "c", "--exe", "e", "--json", "-o", "out"]).unwrap();
        assert_eq!(
            (o.core, o.exe, o.output),
            (Some("c".into()), Some("e".into()), Some("out".into()))
        );
        assert_eq!(census(&["a.json", "--diff", "b.json"]).unwrap().diff, Some("b.json".into()));
        for line in [
            &[][..],
            &["1", "2"],
            &["1", "--core", "c"],
            &["1", "--exe", "e"],
            &["--pins", "x", "1"],
        ] {
            assert_eq!(census(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }

    fn program(line: &[&str]) -> Program {
        parsed(line).unwrap().program
    }

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    fn code(line: &[&str]) -> i32 {
        parsed(line).unwrap_err().exit_code()
    }

    #[test]
    fn the_program_keeps_what_follows() {
        let rest = ["--json", "-o", "x", "--", "-m", "--help"];
        let line = |first: &[&'static str]| [first, &rest].concat();
        assert_eq!(program(&line(&["a.py"])), Program::Script("a.py".into(), words(&rest)));
        assert_eq!(program(&line(&["-m", "m"])), Program::Module("m".into(), words(&rest)));
        assert_eq!(program(&line(&["-mm.n"])), Program::Module("m.n".into(), words(&rest)));
        assert_eq!(program(&line(&["-c", "-x"])), Program::Code("-x".into(), words(&rest)));
        assert_eq!(program(&line(&["-"])), Program::Script("-".into(), words(&rest)));
        let p = program(&line(&["--", "python3", "-X", "dev"]));
        let args = [&["-X", "dev"][..], &rest].concat();
        assert_eq!(p, Program::Command("python3".into(), words(&args)));
    }

    #[test]
    fn options_come_first() {
        let p = parsed(&[
            "--python",
            "odd",
            "-o",
            "out",
            "--json",
            "--no-follow",
            "--function",
            "a:*",
            "--function=b",
            "--all",
            "--top",
            "7",
            "s.py",
            "x",
        ])
        .unwrap();
        let o = p.options;
        assert_eq!(p.program, Program::Script("s.py".into(), words(&["x"])));
        assert_eq!(o.output, Some("out".into()));
        assert_eq!(o.functions, ["a:*", "b"]);
        assert!(o.json && o.no_follow && o.all);
        assert_eq!(o.top, 7);
        assert_eq!(parsed(&["-oout", "s.py"]).unwrap().options.output, Some("out".into()));
        assert_eq!(parsed(&["s.py"]).unwrap().options.top, 5);
    }

    #[test]
    fn usage_errors_are_code_2() {
        for line in [
            &[][..],
            &["--json"],
            &["-m"],
            &["-c"],
            &["--"],
            &["--jsn", "a.py"],
            &["-u", "a.py"],
            &["--top", "x", "a.py"],
            &["--top"],
            &["--function", "", "a.py"],
            &["--function", "a\nb", "a.py"],
            &["--python", "p", "--", "q"],
        ] {
            assert_eq!(code(line), 2, "{line:?}");
        }
        let long = "x".repeat(20_000);
        assert_eq!(code(&["--function", &long, "a.py"]), 2);
        assert_eq!(parse(words(&["strandline", "walk"])).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn help_and_version_are_code_0() {
        for line in [&["--help"][..], &["--version"], &["-h"]] {
            assert_eq!(code(line), 0);
            let whole = [&["strandline"][..], line].concat();
            assert_eq!(parse(words(&whole)).unwrap_err().exit_code(), 0);
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "10x", "-1s", "1e99h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    fn remedies(line: &[&str]) -> Result<Command, clap::Error> {
        parse(words(&[&["strandline", "remedies"], line].concat()))
    }

    #[test]
    fn remedies_have_a_process_or_a_program() {
        for line in [&["4711", "--trim"][..], &["--json", "4711", "--collect"]] {
            assert!(matches!(remedies(line), Ok(Command::RemedyOf(_))), "{line:?}");
        }
        for line in [
            &["a.py", "--trim"][..],
            &["--only", "collect,malloc-trim", "-c", "4711"],
            &["--", "4711"],
        ] {
            assert!(matches!(remedies(line), Ok(Command::Remedies(..))), "{line:?}");
        }
        for line in [
            &[][..],
            &["--only", "gc", "a.py"],
            &["4711"],
            &["--trim"],
            &["--trim", "a.py"],
            &["4711", "--trim", "--collect"],
        ] {
            assert_eq!(remedies(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn clap_finds_nothing_wrong_with_the_definition() {
        Cli::command().debug_assert();
    }
}
