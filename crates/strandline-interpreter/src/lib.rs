//! CPython read from outside: which interpreters an image holds, their small-object allocators
//! down to the block, and which object is in every block.
//!
//! Nothing here needs symbols or debug information. Structures are recognised by what must hold
//! in them, and believed only after all of it was checked; what doesn't hold is returned as a
//! doubt. Layouts come from `strandline-cpython`.
//!
//! What this crate never does: it never runs code in the target, never follows a pointer that
//! wasn't checked, never loops longer than the memory that it was given, and knows nothing of
//! malloc.
#![forbid(unsafe_code)]

mod arenas;
mod blocks;
mod doubt;
mod find;
mod frames;
mod guard;
pub mod mimalloc;
mod modules;
mod states;
mod symbols;
mod types;
pub mod values;
mod version;

pub use arenas::{Arena, Pool, PoolState};
pub use blocks::{own, owner, At, Block, Blocks, Change, Mark, NATIVE};
pub use doubt::{Doubt, Doubts};
pub use find::{find, Interpreter};
pub use frames::{Frame, Frames};
pub use modules::{module_data, words, ModuleData};
pub use states::AllocatorState;
pub use types::{Cache, TypeId, TypeInfo, Types};
pub use version::Version;
