//! Names of native frames: from a library, its build id and an address in it to function, source
//! file and line, inlined functions included.
//!
//! It reads DWARF where there is some, in the library or in a separate debug file found by build
//! id, and the symbol table else; so it works on another machine than the one that was profiled,
//! if the files are there. It never uses a file whose build id isn't the recorded one, never
//! names a function that doesn't cover the address, never runs a program, and downloads nothing.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod files;
mod library;
mod profile;
mod symbolizer;
mod table;

pub use files::LookUpError;
pub use profile::{is_about_names, symbolise};
pub use symbolizer::{Symbol, Symbolizer};
