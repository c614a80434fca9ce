//! One table per CPython version. To add a version, add one table to
//! `interpreter_frames.rs`, name it here in [`layout`] (or in [`debug_base`], if
//! only its debug offsets may be trusted) and run the tests with an interpreter
//! of that version. What versions have in common is in `shared.rs`.
//!
//! Every number is in bytes. The numbers of 2.7 to 3.13 are from the debug
//! information of x86-64 Linux builds of the named micro version, those of 3.14
//! and 3.15 from `offsetof` and `sizeof` compiled against the headers.

mod free_threaded;
mod inline_caches;
mod interpreter_frames;
mod object_frames;
mod shared;

use crate::layout::Layout;
pub use inline_caches::{InlineCaches, HIDES};
use interpreter_frames::*;
use object_frames::*;

/// The layout of a CPython version: 2.7 and 3.6 to 3.13.
///
/// Later versions have none here, their structures are described by the
/// interpreter itself: see [`crate::from_debug_offsets`].
pub fn layout(major: u8, minor: u8) -> Option<&'static Layout> {
    match (major, minor) {
        (2, 7) => Some(&PY27),
        (3, 6) => Some(&PY36),
        (3, 7) => Some(&PY37),
        (3, 8) => Some(&PY38),
        (3, 9) => Some(&PY39),
        (3, 10) => Some(&PY310),
        (3, 11) => Some(&PY311),
        (3, 12) => Some(&PY312),
        (3, 13) => Some(&PY313),
        _ => None,
    }
}

/// The layout of a free-threaded build, and of its allocator: 3.13.
pub fn free_threaded(major: u8, minor: u8) -> Option<(&'static Layout, &'static crate::Mimalloc)> {
    match (major, minor) {
        (3, 13) => Some((&free_threaded::PY313T, &free_threaded::MIMALLOC)),
        _ => None,
    }
}

/// What the debug offsets of a version are laid over: the facts they leave out.
pub(crate) fn debug_base(major: u8, minor: u8) -> Option<&'static Layout> {
    match (major, minor) {
        (3, 13) => Some(&PY313),
        (3, 14) => Some(&PY314),
        (3, 15) => Some(&PY315),
        _ => None,
    }
}
