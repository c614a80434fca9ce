//! The agent: what runs inside the profiled process.
//!
//! It wraps the allocators, attributes every byte to the source line that asked for it, counts
//! in memory that the strandline process shares, and follows children. Installing the hooks
//! ([`start`]) is apart from how the library got into the process; `strandline-preload` is one
//! way.
//!
//! It never reads another process, never prints, never panics, and on a hot path neither
//! allocates nor locks. If anything it needs is missing it stays passive: the program runs as
//! without it.
#![cfg_attr(not(test), no_std)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("the agent knows the x86-64 Linux ABI only");

pub mod attach;
mod bare;
mod census;
mod chunks;
mod clock;
mod control;
mod counters;
mod environment;
mod evidence;
mod explain;
mod footprint;
mod fork;
mod front;
mod got;
mod heap;
mod lines;
mod lock;
mod map;
mod memory;
pub mod meter;
mod module;
mod own;
mod pool_trim;
mod pools;
mod pymem;
mod python;
mod python27;
mod real;
mod region;
mod remedy;
mod rss;
mod setup;
mod shadow;
mod sites;
mod stacks;
mod symbols;
mod tls;
mod usage;

pub mod brk;
pub mod exec;
pub mod lookups;
pub mod malloc;
mod proc;
pub mod process;
pub mod ranges;

pub use process::start;
pub use stacks::native::dlclose;
pub use stacks::threads;
