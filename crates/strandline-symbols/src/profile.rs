//! Naming the native frames of a whole profile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use strandline_profile::{Frame, FrameKind, Node, Process, Profile};

use crate::symbolizer::{Symbol, Symbolizer};

/// Looks all native frames up and rewrites them in place: `function` becomes the name; `file` and
/// `line` become the source's if they are known, else `file` stays the library's. Functions that
/// were inlined get frames and nodes of their own, between the function they were inlined into
/// and what they called; the innermost one takes the place of the frame. Frames that have a name
/// already are left alone.
///
/// `dirs`: see [`Symbolizer::new`]. Returns doubts, one sentence for each library that could not
/// be looked up.
pub fn symbolise(profile: &mut Profile, dirs: &[PathBuf]) -> Vec<String> {
    let mut symbolizer = Symbolizer::new(dirs);
    let mut doubts = BTreeSet::new();
    for process in &mut profile.processes {
        let found = look_up(process, &mut symbolizer, &mut doubts);
        let outer = rename(process, &found);
        if !outer.is_empty() {
            insert(process, &outer);
        }
    }
    doubts.into_iter().collect()
}

const DOUBT: &str = "native code has no names: ";

/// True for a doubt that [`symbolise`] returned.
pub fn is_about_names(doubt: &str) -> bool {
    doubt.starts_with(DOUBT)
}

/// Symbols of the frames of a process, by index of the frame.
fn look_up(
    process: &Process,
    symbolizer: &mut Symbolizer,
    doubts: &mut BTreeSet<String>,
) -> BTreeMap<usize, Vec<Symbol>> {
    let mut by_library: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, frame) in process.frames.iter().enumerate() {
        if frame.kind == FrameKind::Native && frame.function == 0 && frame.file != 0 {
            by_library.entry(frame.file).or_default().push(index);
        }
    }
    let mut found = BTreeMap::new();
    // Library by library, so that each is opened once.
    for (file, frames) in by_library {
        let Some(path) = process.strings.get(file as usize) else { continue };
        let module = process.modules.iter().find(|m| m.file == file);
        let build_id = module.map_or(&[][..], |m| &m.build_id);
        for index in frames {
            let Some(frame) = process.frames.get(index) else { continue };
            match symbolizer.look_up(path, build_id, frame.address) {
                Ok(symbols) if symbols.is_empty() => {}
                Ok(symbols) => _ = found.insert(index, symbols),
                Err(error) => {
                    doubts.insert(format!("{DOUBT}{error}"));
                    break;
                }
            }
        }
    }
    found
}

/// Texts of a process, each once.
struct Strings<'a> {
    all: &'a mut Vec<String>,
    known: HashMap<String, u32>,
}

impl Strings<'_> {
    fn index(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.known.get(text) {
            return known;
        }
        let index = self.all.len() as u32;
        self.all.push(text.to_owned());
        self.known.insert(text.to_owned(), index);
        index
    }
}

/// Rewrites the frames; for those with inlined functions the frames around, outermost first.
fn rename(process: &mut Process, found: &BTreeMap<usize, Vec<Symbol>>) -> HashMap<u32, Vec<u32>> {
    let known = process.strings.iter().cloned().zip(0..).collect();
    let mut strings = Strings { all: &mut process.strings, known };
    let mut added: HashMap<Frame, u32> = HashMap::new();
    let mut outer = HashMap::new();
    for (&index, symbols) in found {
        let Some(&old) = process.frames.get(index) else { continue };
        let mut named = symbols.iter().map(|symbol| {
            let function = strings.index(&symbol.function);
            if symbol.file.is_empty() {
                return Frame { function, ..old };
            }
            Frame { function, file: strings.index(&symbol.file), line: symbol.line, ..old }
        });
        let (Some(innermost), around) = (named.next(), named) else { continue };
        let mut around: Vec<Frame> = around.collect();
        around.reverse();
        if let Some(frame) = process.frames.get_mut(index) {
            *frame = innermost;
        }
        let around: Vec<u32> = around
            .into_iter()
            .map(|frame| {
                *added.entry(frame).or_insert_with(|| {
                    process.frames.push(frame);
                    process.frames.len() as u32 - 1
                })
            })
            .collect();
        if !around.is_empty() {
            outer.insert(index as u32, around);
        }
    }
    outer
}

/// Puts the nodes of the frames around in front of each node with inlined functions.
fn insert(process: &mut Process, outer: &HashMap<u32, Vec<u32>>) {
    let mut nodes: Vec<Node> = Vec::with_capacity(process.nodes.len());
    // Where the old nodes are now.
    let mut moved: Vec<u32> = Vec::with_capacity(process.nodes.len());
    let mut shared: HashMap<Node, u32> = HashMap::new();
    for (index, old) in process.nodes.iter().enumerate() {
        let mut parent = moved.get(old.parent as usize).copied().unwrap_or(0);
        if index > 0 {
            for &frame in outer.get(&old.frame).into_iter().flatten() {
                let node = Node { parent, frame };
                parent = *shared.entry(node).or_insert_with(|| {
                    nodes.push(node);
                    nodes.len() as u32 - 1
                });
            }
        }
        moved.push(nodes.len() as u32);
        nodes.push(Node { parent, frame: old.frame });
    }
    for path in &mut process.paths {
        path.node = moved.get(path.node as usize).copied().unwrap_or(0);
    }
    process.nodes = nodes;
}
