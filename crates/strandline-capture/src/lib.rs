//! The capture: counters that the agent keeps in memory shared with the strandline process.
//!
//! One sparse file (a memfd) holds a [`layout::Header`] and, for every process of the run, one
//! [`layout::Region`] of fixed size. The agent adds to counters in its own region and never
//! takes one back, so that whatever kills the target, the file tells what was measured until
//! then. [`read`] turns the bytes of such a file into plain owned values, and trusts none of
//! them.
//!
//! This crate never maps memory, never talks to a process and knows nothing about CPython or
//! about how a figure is printed.
#![cfg_attr(not(feature = "read"), no_std)]

pub mod layout;
#[cfg(feature = "read")]
pub mod read;
