//! The words of `strandline remedies`: its options and what its help says. What it does is in
//! `crate::remedies` and, with a process id, `crate::control`.

use std::path::PathBuf;

use clap::Args;

/// The ways to call it, as its help shows them.
pub const USAGE: &str = "strandline remedies [OPTIONS] SCRIPT [ARGS]...
       strandline remedies [OPTIONS] -m MODULE [ARGS]...
       strandline remedies [OPTIONS] -c CODE [ARGS]...
       strandline remedies [OPTIONS] -- COMMAND [ARGS]...
       strandline remedies PID --trim|--collect|--pool-trim";

/// What its help says below the options.
pub const EXAMPLES: &str = "\
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
