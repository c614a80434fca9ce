//! A process's call paths by their texts: places and nodes, each once, in the order of their
//! texts.
//!
//! A profile may have the same text under several indices: two addresses of one C function, two
//! code objects of one line. And the order of its tables is the order in which the program came
//! by. Here equal texts are one, and nodes are numbered depth first with siblings in the order of
//! their texts: neighbours share most of their stack, and the order is the same every time.

use std::borrow::Cow;
use std::collections::HashMap;

use strandline_profile::{Frame, FrameKind, Process};

use crate::names::{base, UNKNOWN};

/// A place in code, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<'a> {
    /// Function, never empty: a native frame without a symbol has `lib.so+0x1234`, code that
    /// isn't known [`UNKNOWN`].
    pub function: Cow<'a, str>,
    /// File as the profile has it; native code: the library.
    pub file: &'a str,
    /// Line; 0: unknown.
    pub line: u32,
    /// Machine code.
    pub native: bool,
    /// Native code without a symbol: address in the library's own terms; else 0.
    pub address: u64,
    /// First line of the function; 0: unknown. Where texts are equal and this is not: the lowest.
    pub first_line: u32,
}

impl<'a> Place<'a> {
    fn of(frame: &Frame, process: &'a Process) -> Place<'a> {
        let text = |index: u32| process.strings.get(index as usize).map_or("", String::as_str);
        let (name, file) = (text(frame.function), text(frame.file));
        let native = frame.kind == FrameKind::Native;
        let nameless = native && name.is_empty();
        let function = match (name, native, base(file)) {
            ("", false, _) => Cow::Borrowed(UNKNOWN),
            ("", true, "") => Cow::Owned(format!("{:#x}", frame.address)),
            ("", true, library) => Cow::Owned(format!("{library}+{:#x}", frame.address)),
            (name, _, _) => Cow::Borrowed(name),
        };
        Place {
            function,
            file,
            line: frame.line,
            native,
            address: if nameless { frame.address } else { 0 },
            first_line: frame.first_line,
        }
    }

    /// The same text: all but the first line.
    fn same(&self, other: &Place<'_>) -> bool {
        let key = |p: &Place<'_>| (p.line, p.native, p.address);
        key(self) == key(other) && self.function == other.function && self.file == other.file
    }

    /// Nothing is known of the code.
    pub fn is_unknown(&self) -> bool {
        !self.native && self.file.is_empty() && self.function == UNKNOWN
    }
}

/// A place called from its parent's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TreeNode {
    /// Index into [`Tree::nodes`], below the node's own; 0: called by nobody.
    pub parent: u32,
    /// Index into [`Tree::places`].
    pub place: u32,
}

/// A process's call paths.
#[derive(Debug)]
pub struct Tree<'a> {
    /// Places in the order of their texts; one at least.
    pub places: Vec<Place<'a>>,
    /// Nodes depth first. Node 0 is the root and has no place.
    pub nodes: Vec<TreeNode>,
    /// For each of the process's nodes the one here, never the root.
    of_node: Vec<u32>,
}

impl<'a> Tree<'a> {
    /// Of a process.
    pub fn of(process: &'a Process) -> Tree<'a> {
        let (places, of_frame) = places(process);
        let place = |frame: u32| of_frame.get(frame as usize).or(of_frame.first()).copied();
        let mut nodes = vec![TreeNode::default()];
        let mut known = HashMap::with_capacity(process.nodes.len());
        let mut of_node: Vec<u32> = Vec::with_capacity(process.nodes.len().max(1));
        let mut add = |node: TreeNode| {
            *known.entry(node).or_insert_with(|| {
                nodes.push(node);
                nodes.len() as u32 - 1
            })
        };
        for (i, node) in process.nodes.iter().enumerate().skip(1) {
            // A parent that doesn't stand before its child is none.
            let parent = match node.parent as usize {
                parent if parent < i => parent.checked_sub(1).and_then(|p| of_node.get(p)),
                _ => None,
            };
            let parent = parent.copied().unwrap_or(0);
            of_node.push(add(TreeNode { parent, place: place(node.frame).unwrap_or(0) }));
        }
        // What has no stack is under a place of its own: every format needs one to show.
        let unknown =
            process.paths.iter().any(|p| !(1..=of_node.len()).contains(&(p.node as usize)));
        let unknown = match unknown {
            true => add(TreeNode { parent: 0, place: place(0).unwrap_or(0) }),
            false => 0,
        };
        of_node.insert(0, unknown);
        let number = depth_first(&nodes);
        let mut ordered = vec![TreeNode::default(); nodes.len()];
        let new = |old: u32| number.get(old as usize).copied().unwrap_or(0);
        for (old, node) in nodes.iter().enumerate().skip(1) {
            if let Some(to) = ordered.get_mut(new(old as u32) as usize) {
                *to = TreeNode { parent: new(node.parent), place: node.place };
            }
        }
        for node in &mut of_node {
            *node = new(*node);
        }
        Tree { places, nodes: ordered, of_node }
    }

    /// The node for one of the process's.
    pub fn node(&self, process_node: u32) -> u32 {
        self.of_node.get(process_node as usize).or(self.of_node.first()).copied().unwrap_or(0)
    }

    /// The place of a node.
    pub fn place(&self, node: u32) -> u32 {
        self.nodes.get(node as usize).map_or(0, |n| n.place)
    }

    /// The places of a call path, innermost first.
    pub fn inward_out(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let get = |node: u32| self.nodes.get(node as usize).filter(|_| node != 0);
        std::iter::successors(get(node), move |n| get(n.parent)).map(|n| n.place)
    }

    /// The places of a call path, outermost first, into `stack`.
    pub fn stack(&self, node: u32, stack: &mut Vec<u32>) {
        stack.clear();
        stack.extend(self.inward_out(node));
        stack.reverse();
    }
}

/// All places, and for each frame its own; frame 0 always has one.
fn places(process: &Process) -> (Vec<Place<'_>>, Vec<u32>) {
    let unused = [Frame::default()];
    let frames = if process.frames.is_empty() { &unused[..] } else { &process.frames };
    let mut all: Vec<(Place<'_>, usize)> =
        frames.iter().enumerate().map(|(i, frame)| (Place::of(frame, process), i)).collect();
    all.sort_unstable();
    let mut places: Vec<Place<'_>> = Vec::new();
    let mut of_frame = vec![0; frames.len()];
    for (place, frame) in all {
        match places.last_mut().filter(|last| last.same(&place)) {
            // Sorted by first line at last, so it is the lowest, but for "unknown".
            Some(last) if last.first_line == 0 => last.first_line = place.first_line,
            Some(_) => {}
            None => places.push(place),
        }
        if let Some(of) = of_frame.get_mut(frame) {
            *of = places.len() as u32 - 1;
        }
    }
    (places, of_frame)
}

/// For each node its number depth first, siblings by place.
fn depth_first(nodes: &[TreeNode]) -> Vec<u32> {
    let parent = |n: u32| nodes.get(n as usize).map_or((0, 0), |n| (n.parent, n.place));
    let mut by_parent: Vec<u32> = (1..nodes.len() as u32).collect();
    by_parent.sort_unstable_by_key(|&n| parent(n));
    // Where each parent's children start in `by_parent`.
    let mut starts = vec![0u32; nodes.len() + 1];
    for &n in &by_parent {
        if let Some(start) = starts.get_mut(parent(n).0 as usize + 1) {
            *start += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut number = vec![0; nodes.len()];
    let (mut open, mut next) = (vec![0u32], 0u32);
    while let Some(node) = open.pop() {
        if let Some(number) = number.get_mut(node as usize) {
            *number = next;
        }
        next += 1;
        let range = |i: usize| starts.get(i).copied().unwrap_or(0) as usize;
        let children = by_parent.get(range(node as usize)..range(node as usize + 1));
        open.extend(children.unwrap_or_default().iter().rev());
    }
    number
}

#[cfg(test)]
mod tests {
    use strandline_profile::{Builder, Node, Path};

    use super::*;

    #[test]
    fn equal_texts_are_one_and_siblings_are_sorted() {
        let mut b = Builder::new();
        let z = b.python_path([("main", "a.py", 1), ("z", "a.py", 5)]);
        let a = b.python_path([("main", "a.py", 1), ("a", "a.py", 9)]);
        let (function, file) = (b.string("a"), b.string("a.py"));
        let frame = Frame { function, file, line: 9, first_line: 8, ..Frame::default() };
        let twin = b.frame(frame);
        let main = b.python_path([("main", "a.py", 1)]);
        let twin = b.node(main, twin);
        let process = b.finish();
        let tree = Tree::of(&process);
        assert_eq!(tree.node(a), tree.node(twin));
        assert!(tree.node(a) < tree.node(z));
        assert_eq!(tree.nodes.len(), 4);
        let mut stack = Vec::new();
        tree.stack(tree.node(a), &mut stack);
        let names: Vec<_> = stack.iter().map(|&p| &*tree.places[p as usize].function).collect();
        assert_eq!(names, ["main", "a"]);
        assert_eq!(tree.places[stack[1] as usize].first_line, 8);
    }

    #[test]
    fn what_has_no_stack_is_unknown() {
        let mut b = Builder::new();
        b.process().paths.push(Path::default());
        let process = b.finish();
        let tree = Tree::of(&process);
        let place = tree.place(tree.node(0));
        assert!(tree.places[place as usize].is_unknown());
        assert_eq!(tree.inward_out(tree.node(0)).count(), 1);
    }

    #[test]
    fn indices_that_lead_nowhere_do_no_harm() {
        let process = Process {
            nodes: vec![
                Node { parent: 9, frame: 9 },
                Node { parent: 1, frame: 9 },
                Node { parent: 7, frame: 0 },
            ],
            paths: vec![Path { node: 77, thread: 5, ..Path::default() }],
            ..Process::default()
        };
        let tree = Tree::of(&process);
        assert_eq!(tree.inward_out(tree.node(77)).count(), 1);
        assert_eq!(tree.inward_out(tree.node(2)).count(), 1);
    }

    #[test]
    fn native_code_without_a_symbol_has_its_address() {
        let mut b = Builder::new();
        let file = b.string("/usr/lib/libz.so.1");
        let native = Frame { file, kind: FrameKind::Native, address: 0x1234, ..Frame::default() };
        let frame = b.frame(native);
        let node = b.node(0, frame);
        let process = b.finish();
        let tree = Tree::of(&process);
        let place = &tree.places[tree.place(tree.node(node)) as usize];
        assert_eq!(place.function, "libz.so.1+0x1234");
        assert_eq!(place.address, 0x1234);
    }
}
