//! Where CPython keeps what a profiler must read, by version, as data.
//!
//! An in-process profiler has to follow raw pointers from a thread state to the
//! running frame, to its code object, to a file name and a line. Those positions
//! change with every CPython minor version. This crate states them: [`layout`]
//! gives the table of one version, [`from_debug_offsets`] reads the table that
//! CPython 3.13 and later carry at the start of the exported symbol `_PyRuntime`.
//!
//! All offsets and sizes are in bytes, for 64-bit little-endian Linux (LP64),
//! release (non-`Py_DEBUG`) builds with the GIL; [`free_threaded`] has those without.
//!
//! What this crate never does: it never reads memory, never calls anything of
//! CPython, never allocates and never panics. It has no `unsafe` code.
//!
//! Micro versions: CPython keeps the objects' structures within a minor version,
//! but not always `PyInterpreterState`: its size differs between 3.13.0 and
//! 3.13.5. Fields of [`Interp`] are therefore as measured on the micro version
//! named at each table.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod asyncio;
mod debug_offsets;
mod evaluator;
mod layout;
mod line_table;
mod tables;
mod tracing;

pub use debug_offsets::{from_debug_offsets, DebugOffsetsError, DEBUG_OFFSETS_MAX};
pub use evaluator::{evaluator, Evaluator};
pub use layout::*;
pub use line_table::{Cursor, LineTable};
pub use tables::{free_threaded, layout, InlineCaches, HIDES};
pub use tracing::{instrumentation, traced_calls, Instrumentation, TracedCalls};
