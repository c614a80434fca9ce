//! The words of `strandline explain`: its options and what its help says. What it does is in
//! `crate::explain`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Reading;

/// The ways to call it, as its help shows them.
pub const USAGE: &str = "strandline explain [OPTIONS] PID
       strandline explain [OPTIONS] --core FILE [--exe FILE]
       strandline explain [OPTIONS] FILE.json...
       strandline explain [OPTIONS] FILE.strand";

/// What its help says below the options.
pub const EXAMPLES: &str = "\
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
