//! Finding the interpreters of an image.

use strandline_cpython::{Layout, DEBUG_OFFSETS_MAX};
use strandline_image::Image;

use crate::guard::guard;
use crate::modules::{module_data, ModuleData};
use crate::states::{self, AllocatorState};
use crate::symbols::symbol;
use crate::version::{version_in, Version};
use crate::{Doubts, Types};

/// A CPython in the image: one library or executable, with all its (sub-)interpreters.
pub struct Interpreter {
    /// What it says of itself.
    pub version: Version,
    /// Offsets of its structures.
    pub layout: Layout,
    /// Path of the library or executable, as the target sees it.
    pub module: String,
    /// The allocator states: one, or one for each interpreter with an allocator of its own (3.12).
    pub states: Vec<AllocatorState>,
    /// Bytes that debug hooks put in front of every block; 0 as a rule.
    pub guard: u64,
}

/// Addresses of `_PyRuntime` in the module's data: where debug offsets start (3.13 and later), or
/// where the module's symbols say.
pub fn runtimes(image: &Image, module: &[ModuleData]) -> Vec<u64> {
    let cookie = u64::from_le_bytes(*b"xdebugpy");
    let all = module.iter().flat_map(|part| part.words(image));
    let found: Vec<u64> = all.filter(|&(_, word)| word == cookie).map(|(at, _)| at).collect();
    if !found.is_empty() {
        return found;
    }
    let Some(inode) = module.first().map(|part| part.inode) else { return found };
    let first = image.mappings().iter().find(|m| m.inode == inode && m.offset == 0);
    first.and_then(|first| symbol(image, first, b"_PyRuntime")).into_iter().collect()
}

/// The layout of the interpreter whose version is `version`: from its debug offsets where it has
/// them, else the table of its series.
fn layout_of(image: &Image, version: &Version, module: &[ModuleData]) -> Option<Layout> {
    if version.series >= (3, 13) {
        for runtime in runtimes(image, module) {
            let mut table = [0; DEBUG_OFFSETS_MAX];
            if image.read(runtime, &mut table) {
                if let Ok(layout) = strandline_cpython::from_debug_offsets(&table) {
                    return Some(layout);
                }
            }
        }
    }
    strandline_cpython::layout(version.series.0, version.series.1).copied()
}

/// The interpreters of the image. A CPython whose version isn't known is a doubt.
pub fn find(image: &Image, doubts: &mut Doubts) -> Vec<Interpreter> {
    let data = module_data(image);
    let mut found: Vec<Interpreter> = Vec::new();
    let mut inodes: Vec<u64> = data.iter().map(|part| part.inode).collect();
    inodes.sort_unstable();
    inodes.dedup();
    for inode in inodes {
        let module: Vec<ModuleData> = data.iter().filter(|p| p.inode == inode).cloned().collect();
        let Some(version) = module.iter().find_map(|part| version_in(image, part)) else {
            continue;
        };
        let layout = match version.free_threaded {
            true => strandline_cpython::free_threaded(version.series.0, version.series.1)
                .map(|(layout, _)| *layout),
            false => layout_of(image, &version, &module),
        };
        let Some(layout) = layout else {
            doubts.add(version.address, "a CPython of a version that is not known");
            continue;
        };
        found.push(Interpreter {
            module: module.first().map(|part| part.path.clone()).unwrap_or_default(),
            // Without the GIL its objects are in mimalloc.
            states: match version.free_threaded {
                true => Vec::new(),
                false => states::find(image, &module, &layout, doubts),
            },
            layout,
            version,
            guard: guard(image),
        });
    }
    found
}

impl Interpreter {
    /// An empty table of types for this interpreter, the `number`th of its image.
    pub fn types(&self, number: usize) -> Types {
        Types::new(self.layout, number, self.guard)
    }
}
