//! Unwinds the calling thread's own native stack, from inside an allocator hook: which C, C++
//! and Rust functions asked for this memory.
//!
//! It follows the rules that compilers write into `.eh_frame` (x86-64 Linux), and the frame
//! pointer where there are none. Rules are squeezed into 64 bits and remembered by address, so a
//! frame costs a few nanoseconds.
//!
//! [`capture`] never allocates, never takes a lock, never changes `errno`, never panics, and
//! never reads outside the stack it was given; it reads unwind tables of loaded libraries only
//! for addresses it has not seen before. [`refresh`] takes the loader's lock and is for cold
//! places. Nothing here reads another thread or another process, and nothing here knows names of
//! functions.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("the rules of the System V ABI for x86-64 and Linux's loader are built in");

mod bare;
mod cache;
mod compact;
mod image;
mod loader;
mod once;
mod reader;
mod registers;
mod stack;
mod walk;

/// Call frame information: parsing it, from slices alone.
pub mod cfi {
    pub use crate::entry::{find, frames_address, Entry};
    pub use crate::expression::{evaluate, Context};
    pub use crate::reader::Section;
    pub use crate::row::{Cfa, Row, Rule};
}
mod entry;
mod expression;
pub mod modules;
mod row;

pub use cache::epoch;
pub use image::Range;
pub use modules::refresh;
pub use registers::Registers;
pub use stack::{StackBounds, StackCache};
pub use walk::{capture, capture_from, function_at, End, Frame};

/// Resident bytes of what is remembered between captures: rules, modules and their names.
pub fn resident() -> usize {
    cache::resident() + modules::resident()
}

/// Makes all rules be forgotten, as the unloading of a library does: for measurements and tests.
#[doc(hidden)]
pub fn forget() {
    cache::next_epoch();
}

/// Does without glibc's `_dl_find_object` from now on, as on a system that lacks it: for tests.
#[doc(hidden)]
pub fn without_find_object() {
    loader::without_find_object();
}
