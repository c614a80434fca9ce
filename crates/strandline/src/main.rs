//! The `strandline` command. `run` starts a program with the agent inside it, waits for it, and
//! writes the report; `census` reads the memory of a process or core file and says what it is;
//! `explain` says why it stays; `remedies` measures what gives memory back, or has it done in a
//! process that runs under `run`; `report`, `tree`, `table`, `stats` and `diff` show profiles by call
//! path (`views`).
//!
//! It parses arguments, finds interpreters, makes the files that it shares with the target, and
//! passes signals and exit codes through. It knows nothing about memory (that is the agent's
//! and the report's business), touches the target only where `remedies PID` asks for it (`enter`),
//! and never breaks the program that it
//! runs: its own failures before the start end in a one-line error and code 125, and after the
//! end they leave the program's own code alone.

mod call_paths;
mod census;
mod cli;
mod control;
mod elf;
mod enter;
mod error;
mod explain;
mod launch;
mod lines;
mod moments;
mod output;
mod package;
mod progress;
mod record;
mod remedies;
mod run;
mod shared;
mod signals;
mod target;
mod views;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().collect()) {
        Ok(cli::Command::Run(options)) => run::run(options),
        Ok(cli::Command::Census(options)) => census::census(&options),
        Ok(cli::Command::Explain(options)) => explain::explain(&options),
        Ok(cli::Command::RemedyOf(options)) => control::apply(&options),
        Ok(cli::Command::Remedies(options, program)) => remedies::measure(&options, &program),
        Ok(cli::Command::View(view)) => views::show(&view),
        Ok(cli::Command::Package(package)) => package::serve(&package),
        // Help and version go to stdout with code 0, usage errors to stderr with code 2.
        Err(e) => e.exit(),
    }
}
