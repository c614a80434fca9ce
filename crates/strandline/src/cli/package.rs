//! Words that the Python package `strandline` uses; not shown in the help.

use std::path::PathBuf;

use clap::Subcommand;

/// What the package asks for.
#[derive(Debug, Subcommand)]
pub enum Package {
    /// Write the agent's library to stdout
    #[command(hide = true)]
    Agent,
    /// Write the resident memory of a process to stdout until stdin ends or the process does
    #[command(hide = true)]
    Sample {
        /// The process
        pid: u32,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value_t = 0.1, value_parser = interval)]
        interval: f64,
        /// Its children and their children, too
        #[arg(long)]
        children: bool,
    },
    /// Show the line tables of a capture that the agent has written
    #[command(hide = true)]
    Tables {
        /// The capture
        file: PathBuf,
        /// The process that it is of
        #[arg(long, value_name = "PID")]
        pid: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Number of source lines in the lists of those that hold and that ask for most
        #[arg(long, value_name = "N", default_value_t = 0)]
        top: usize,
    },
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("an interval is a number of seconds up to 86400".to_owned()),
    }
}
