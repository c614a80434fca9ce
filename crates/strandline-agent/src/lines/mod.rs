//! Line tables: which lines of which functions are shown, and what each of them did.
//!
//! A *marked* code object belongs to a function of the capture; its lines have slots. An event
//! source ([`monitoring`] from 3.12, [`trace`] before) says "enters", "line", "leaves"; the
//! thread's stack of activations turns that into the set of active lines (the *context* that
//! every allocation is counted under), peaks, RSS and stranded changes, and occurrences.
//!
//! Everything here runs under the GIL.

mod activation;
mod bound_methods;
pub mod marked;
pub mod monitoring;
pub mod trace;

pub use activation::{after_fork, enter, fold, leave, line, quiet_line, Entry};
pub use marked::code_freed;
