//! The heaps of glibc's malloc, chunk by chunk, read from an image of a process' memory: without
//! symbols, without running anything in the process, and to the byte what `mallinfo2` says there.
//! Of other allocators it gives the names.
//!
//! What this crate never does: it never asks which program owns a chunk or what is in it, never
//! reads a file or a process (`strandline-image` does), and never believes a word of the image:
//! a pointer is followed only where it can lead, a list only as far as there are chunks. What
//! doesn't fit is a [`Doubt`], never a panic and never a guess.
//!
//! 64-bit little-endian targets only (x86-64, arm64), where `MALLOC_ALIGNMENT` is 16.
//!
//! How it goes: `find` looks for `main_arena` by its bins, which link to themselves when empty;
//! `params` for `mp_`; `heaps` cuts memory into heaps and `walk` cuts these into chunks; `lists`
//! follows the unsorted, fast and tcache lists; `mmapped` finds the chunks with a mapping of
//! their own. All that is known of a glibc version stands in `layout`.

#![forbid(unsafe_code)]

mod arenas;
mod chunk;
mod find;
mod heap;
mod heaps;
mod layout;
mod lists;
mod memory;
mod mmapped;
mod model;
mod others;
mod params;
mod tcache;
mod walk;

pub use arenas::{read, read_with};
pub use chunk::{Chunk, State};
pub use heap::Heap;
pub use model::{Arena, Doubt, Malloc, Mmapped, Sum, Totals, What};
pub use others::{Evidence, OtherAllocator};
pub use params::Thresholds;
