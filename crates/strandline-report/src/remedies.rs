//! The report of `strandline remedies`: what each remedy did to the same program. Field by field
//! the JSON is described in `docs/remedies.md`.

mod judge;
mod text;

use serde::Serialize;

use crate::Exit;

pub use judge::{noise, Sample};
pub use text::render;

/// Name and version of the JSON's schema.
pub const REMEDIES_SCHEMA: &str = "strandline-remedies/1";

/// The whole report. Amounts are bytes; `None` is what can't be known or isn't there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Remedies {
    /// [`REMEDIES_SCHEMA`].
    pub schema: &'static str,
    /// Version of strandline.
    pub strandline: String,
    /// The command that was run.
    pub command: Vec<String>,
    /// The same as one would write it in a shell.
    pub command_line: String,
    /// Version of the Python that ran it.
    pub python: Option<String>,
    /// Process id of the first run, as it is.
    pub pid: u32,
    /// Runs under each remedy; figures are their medians.
    pub repeat: u32,
    /// Where remedies acted and what "marked" means.
    pub point: Point,
    /// How often the program came to that point.
    pub point_count: u64,
    /// Differences of RSS up to this are no effect.
    pub noise_bytes: i64,
    /// Figures of the program as it is.
    pub as_is: Measured,
    /// Remedies that were tried, best first.
    pub remedies: Vec<Row>,
    /// Those that weren't.
    pub not_tried: Vec<NotTried>,
    /// What the reader should know of the figures, one sentence each.
    pub notes: Vec<String>,
}

/// The point at which remedies act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Point {
    /// Each `strandline.mark()`.
    Mark,
    /// Each return of an outermost function under `@profile`.
    Return,
    /// The end of the program.
    End,
}

/// Figures of a program under a remedy, or as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Highest RSS.
    pub peak_rss_bytes: Option<i64>,
    /// RSS right before the interpreter takes itself down.
    pub end_rss_bytes: Option<i64>,
    /// RSS at the last marked point, before the remedy acted there.
    pub marked_rss_bytes: Option<i64>,
    /// RSS right after the remedy acted there.
    pub after_action_rss_bytes: Option<i64>,
    /// `marked_rss_bytes - end_rss_bytes`.
    pub returned_bytes: Option<i64>,
    /// From the start of the program to its end, nanoseconds.
    pub run_ns: u64,
    /// How it ended.
    pub exit: Exit,
}

/// What a remedy is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// Stable name.
    pub name: &'static str,
    /// What it does.
    pub text: String,
    /// What to put into a shell, or into the program if there is nothing for a shell.
    pub line: String,
    /// The same for a Dockerfile.
    pub dockerfile: Option<String>,
    /// What to put into the program.
    pub code: Option<String>,
}

/// A remedy that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    #[allow(missing_docs)]
    #[serde(flatten)]
    pub remedy: Remedy,
    #[allow(missing_docs)]
    #[serde(flatten)]
    pub measured: Measured,
    /// Differences to the program as it is; negative is less.
    pub difference: Difference,
    /// What came of it.
    pub verdict: Verdict,
    /// Why it failed, if so.
    pub error: Option<String>,
    /// The program wrote something else than as it is; `None`: that can't be told.
    pub output_differs: Option<bool>,
}

/// A figure under a remedy minus the same as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Difference {
    pub peak_rss_bytes: Option<i64>,
    pub end_rss_bytes: Option<i64>,
    pub returned_bytes: Option<i64>,
    pub run_ns: i64,
}

/// What came of a remedy, by RSS at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Less than as it is.
    #[serde(rename = "better")]
    Better,
    /// As much, within the noise.
    #[serde(rename = "no effect")]
    NoEffect,
    /// More.
    #[serde(rename = "worse")]
    Worse,
    /// The program ended another way than as it is, or the remedy was not in force.
    #[serde(rename = "failed")]
    Failed,
}

/// A remedy that was not tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotTried {
    /// Its name.
    pub name: &'static str,
    /// Why, and what can be done.
    pub reason: String,
}

impl Remedies {
    /// The JSON, with a newline at the end.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}
