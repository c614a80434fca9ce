//! The words of `strandline run`: its options and what its help says. What it does is in `crate::run`.

use std::path::PathBuf;

use clap::Args;

/// The ways to call it, as its help shows them.
pub const USAGE: &str = "strandline run [OPTIONS] SCRIPT [ARGS]...
       strandline run [OPTIONS] -m MODULE [ARGS]...
       strandline run [OPTIONS] -c CODE [ARGS]...
       strandline run [OPTIONS] -- COMMAND [ARGS]...";

/// What its help says below the options.
pub const EXAMPLES: &str = "\
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
