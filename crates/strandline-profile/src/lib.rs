//! What a run with `--stacks` learned: who allocated, by call path; and the `.strand` file that
//! keeps it.
//!
//! Plain owned values ([`Profile`]) with one file format under them. Everything that came from a
//! file is checked before it is handed out: indexes are in range, every node's parent stands
//! before it, so a reader may index and walk without looking. It knows no process, only the values
//! that were read of a capture ([`from_capture`]), prints nothing, and no input makes it panic or use memory without bound.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![forbid(unsafe_code)]

mod build;
mod capture;
mod check;
pub mod events;
mod file;
mod model;
mod weights;

pub use build::Builder;
pub use capture::from_capture;
pub use file::{is_profile, read, write, write_again, FileError, MAGIC, VERSION};
pub use model::*;
pub use weights::Weight;
