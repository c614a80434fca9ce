//! The command line.
//!
//! Options of strandline end where the program begins: at the first word that is none, at `-m`,
//! `-c` or `--`. All that follows belongs to the program, whatever it looks like. clap has no
//! such rule, so the words are divided first and clap only sees ours.

mod census;
mod divide;
mod explain;
pub mod package;
mod remedies;
mod run;
pub mod views;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

pub use census::{CensusOptions, Reading};
pub use divide::Program;
use divide::{divide, names_process, Found};
pub use explain::ExplainOptions;
pub use remedies::RemediesOptions;
pub use run::RunOptions;

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
    #[command(override_usage = run::USAGE, after_help = run::EXAMPLES, version)]
    Run(RunOptions),
    /// Say what every resident byte of a Python process is
    #[command(override_usage = census::USAGE, after_help = census::EXAMPLES, version)]
    Census(CensusOptions),
    /// Say why the memory of a process stays, and what would bring it back
    #[command(override_usage = explain::USAGE, after_help = explain::EXAMPLES, version)]
    Explain(ExplainOptions),
    /// Measure what would give memory back: the same program under each remedy
    #[command(override_usage = remedies::USAGE, after_help = remedies::EXAMPLES, version)]
    Remedies(RemediesOptions),
    /// Show a profile by call path
    #[command(flatten)]
    View(views::View),
    #[command(flatten)]
    Package(package::Package),
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
            if let Some(name) = options.only.iter().find(|name| !crate::remedies::is_known(name)) {
                let text = format!(
                    "no remedy is called '{name}'; there are: {}",
                    crate::remedies::names()
                );
                return Err(usage(verb, ErrorKind::InvalidValue, &text));
            }
            let program = program_of(verb, program, options.python.is_some())?;
            Ok(Command::Remedies(options, program))
        }
    }
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
