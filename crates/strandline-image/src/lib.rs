//! The memory of a process at one moment: its mappings, which of their pages are resident, and
//! the bytes. Where they come from (a live process, a core file, a test's fixture) is known here
//! and nowhere above.
//!
//! What this crate never does: it never interprets the bytes (no CPython, no malloc), never runs
//! code in the target, never writes a byte of it, and never makes a page of it resident that
//! wasn't.

mod copy;
mod core;
mod elf;
mod error;
mod image;
mod mapping;
mod memory;
mod pages;
mod process;
mod smaps;
mod stop;

pub use crate::core::from_core;
pub use error::Error;
pub use image::{Facts, Fetch, Image, Piece, Source, Thread};
pub use mapping::{Mapping, PageSet, Usage, PAGE};
pub use process::{capture, Options};
