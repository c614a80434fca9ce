//! Which of the words of a command line are strandline's, for clap, and which are the program's. No
//! word's meaning is known here but how many it takes with it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use super::RemediesOptions;

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

/// Adds the options of a verb to a command.
pub type Augment = fn(clap::Command) -> clap::Command;

/// What the words that aren't ours are.
pub enum Found {
    /// There are none.
    Nothing,
    /// `-m`, `-c` or `--` without what it needs.
    NoValue(&'static str),
    /// A program.
    Program(Program),
}

/// Divides `strandline run ...` (or another verb that runs a program) into our words and the program.
pub fn divide(words: &[OsString], options: Augment) -> (Vec<OsString>, Found) {
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

/// `remedies PID`: the first word that is no option is a number.
pub fn names_process(words: &[OsString]) -> bool {
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
