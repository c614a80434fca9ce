//! The `strandline` command: starts a program with the agent inside it, waits for it, and writes
//! the report.
//!
//! It parses arguments, finds interpreters, makes the files that it shares with the target, and
//! passes signals and exit codes through. It knows nothing about memory (that is the agent's
//! and the report's business), never looks into the target, and never breaks the program that it
//! runs: its own failures before the start end in a one-line error and code 125, and after the
//! end they leave the program's own code alone.

mod cli;
mod elf;
mod error;
mod launch;
mod output;
mod run;
mod shared;
mod signals;
mod target;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os().collect()) {
        Ok(options) => options,
        // Help and version go to stdout with code 0, usage errors to stderr with code 2.
        Err(e) => e.exit(),
    };
    run::run(options)
}
