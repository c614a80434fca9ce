//! A profile as one self-contained HTML page: a flame graph with its timeline, or the difference
//! of two profiles.
//!
//! The page's script and style are made from `web/flamegraph` and stand ready in `assets`, so
//! this crate builds without any tool of the web. It puts them together with the profile's
//! figures, packed: it computes no layout and draws nothing. The page never asks the network for
//! anything (its own content security policy forbids it), nothing of a profile is ever read as
//! markup or script, and the same input gives the same bytes. It knows no process, and reads no
//! file but through [`Sources`].
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![forbid(unsafe_code)]

mod columns;
mod entries;
mod error;
mod frames;
mod header;
mod moved;
mod page;
mod sources;
mod timeline;
mod tree;

use std::io::Write;

use strandline_profile::{Profile, Weight};

pub use error::FlameError;
pub use sources::{Disk, NoSources, Sources};

/// How the page is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Put the source line of every frame into the page.
    pub sources: bool,
    /// The page's title; `None`: the command that was run.
    pub title: Option<String>,
    /// The weight that is shown first.
    pub weight: Weight,
}

impl Default for Options {
    fn default() -> Options {
        Options { sources: true, title: None, weight: Weight::Peak }
    }
}

/// Writes the page of one profile.
pub fn render(
    profile: &Profile,
    options: &Options,
    sources: &dyn Sources,
    to: &mut dyn Write,
) -> Result<(), FlameError> {
    page::write(&[profile], options, sources, to)
}

/// Writes the page of what differs between two profiles. Call paths are the same if their
/// functions, files and lines are, as texts and numbers; lines are counted from where their
/// function begins if that is known of both and no other function of the file has its name.
/// Processes are matched by the order in which they started, and their threads by name.
pub fn render_diff(
    before: &Profile,
    after: &Profile,
    options: &Options,
    sources: &dyn Sources,
    to: &mut dyn Write,
) -> Result<(), FlameError> {
    page::write(&[before, after], options, sources, to)
}
