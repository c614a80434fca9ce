//! What people read of a profile in a terminal, and the same as values for JSON: a summary, the
//! lines of a file, the call tree, a table, statistics, and what changed between two profiles.
//!
//! Everything starts with [`Merged`]: the call paths of the chosen processes, of one profile or of
//! two, as one tree whose places are told apart by their texts. Each view is a value ([`Report`],
//! [`Ledger`], [`CallTree`], [`Table`], [`Stats`], [`Diff`]) that serialises to its JSON and that
//! [`text`] renders, so the two never disagree. A view's memory is bounded by the number of call
//! paths (its text or JSON is as long as the rows that were asked for), and one profile always gives
//! one and the same text.
//!
//! It opens no profile, looks into no process and prints nothing. All that it may read is source
//! text, through the `Sources` that the caller hands in; no profile makes it panic.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![forbid(unsafe_code)]

mod diff;
mod error;
mod group;
mod histogram;
mod lines;
mod merge;
mod place;
mod report;
mod run;
mod stats;
mod sums;
mod table;
pub mod text;
mod tree;
mod types;

pub use diff::{Change, Diff, Status};
pub use error::ViewError;
pub use group::By;
pub use histogram::{LifetimeClass, Lifetimes, SizeClass, Sizes};
pub use lines::{Figures, FileLines, Ledger, LedgerLine};
pub use merge::Merged;
pub use place::{CallPath, Key, Place};
pub use report::{LineRow, PathRow, Report, Section, ThreadRow};
pub use run::{ProcessRow, RunRow};
pub use stats::{DomainRow, LargePath, Stats};
pub use table::{Row, Sort, Table};
pub use tree::{CallTree, TreeOptions, TreeRow};
