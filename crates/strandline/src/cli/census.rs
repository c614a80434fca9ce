//! The words of `strandline census`: its options and what its help says. What it does is in `crate::census`.

use std::path::PathBuf;

use clap::Args;

/// The ways to call it, as its help shows them.
pub const USAGE: &str = "strandline census [OPTIONS] PID
       strandline census [OPTIONS] --core FILE [--exe FILE]
       strandline census [OPTIONS] FILE.json [--diff FILE.json]";

/// What its help says below the options.
pub const EXAMPLES: &str = "\
The process needs no preparation, runs no code of strandline's, and is not written to. It stands
still while its memory is copied (some 150 ms per GiB) and runs on.

Examples:
  strandline census 4711
  strandline census 4711 --json -o before.json
  strandline census before.json --diff after.json
  strandline census --core core.4711";

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
