//! The call paths of all processes as one tree.

use std::collections::HashMap;

use strandline_profile::{Frame, Process};

use crate::columns::Columns;
use crate::error::{index, FlameError};
use crate::frames::{Frames, OTHERS, UNKNOWN};

/// The node of what was allocated while no code was known to run.
pub const UNKNOWN_NODE: u32 = 1;
/// The node of what a point of the timeline doesn't tell apart.
pub const OTHERS_NODE: u32 = 2;

/// Nodes in the order in which they were met, parents first.
#[derive(Debug)]
pub struct Tree {
    /// Parent and frame of each; node 0 is the root.
    nodes: Vec<(u32, u32)>,
    known: HashMap<(u32, u32), u32>,
}

/// The tree in its final order: depth first, siblings by frame.
#[derive(Debug)]
pub struct Ordered {
    /// The final number of each node.
    pub of: Vec<u32>,
    /// Depth (the root's is 0) and frame of each, in the final order.
    nodes: Vec<(u32, u32)>,
}

impl Tree {
    /// With the root and the two nodes that are no code.
    pub fn new() -> Tree {
        let nodes = vec![(0, 0), (0, UNKNOWN), (0, OTHERS)];
        let known = HashMap::from([(nodes[1], UNKNOWN_NODE), (nodes[2], OTHERS_NODE)]);
        Tree { nodes, known }
    }

    /// Adds those nodes of a process that its paths need; for each of its nodes the one in this
    /// tree (0: not needed). `line` tells a frame's line.
    pub fn add(
        &mut self,
        process: &Process,
        frames: &mut Frames,
        line: &dyn Fn(&Frame) -> u32,
    ) -> Result<Vec<u32>, FlameError> {
        let mut needed = vec![false; process.nodes.len()];
        for path in &process.paths {
            let mut at = path.node as usize;
            while let Some(slot) = needed.get_mut(at).filter(|n| !**n) {
                *slot = true;
                // A parent stands before its child; what doesn't is cut off.
                at = process.nodes.get(at).map_or(0, |n| n.parent as usize).min(at);
            }
        }
        let mut frame_of = vec![None; process.frames.len()];
        let mut of = vec![0; process.nodes.len()];
        for (at, node) in process.nodes.iter().enumerate() {
            if at == 0 || !needed.get(at).is_some_and(|n| *n) {
                continue;
            }
            let frame = match frame_of.get_mut(node.frame as usize) {
                Some(Some(known)) => *known,
                Some(slot) => {
                    let frame = process.frames.get(node.frame as usize).copied();
                    let frame = frame.unwrap_or_default();
                    *slot.insert(frames.of(process, &frame, line(&frame))?)
                }
                None => UNKNOWN,
            };
            let parent = of.get(node.parent as usize).copied().unwrap_or(0);
            let number = self.node(parent, frame)?;
            if let Some(slot) = of.get_mut(at) {
                *slot = number;
            }
        }
        // A path without frames stands for "unknown"; calls began at this tree's root.
        if let Some(root) = of.first_mut() {
            *root = UNKNOWN_NODE;
        }
        Ok(of)
    }

    fn node(&mut self, parent: u32, frame: u32) -> Result<u32, FlameError> {
        if let Some(&known) = self.known.get(&(parent, frame)) {
            return Ok(known);
        }
        let at = index(self.nodes.len(), "call paths")?;
        self.nodes.push((parent, frame));
        self.known.insert((parent, frame), at);
        Ok(at)
    }

    /// Brings the nodes into their final order.
    pub fn order(self) -> Ordered {
        let Tree { nodes, known } = self;
        drop(known);
        // Children as chains, the last frame first, so that the stack below gives the first one.
        let mut by_frame: Vec<u32> = (1..nodes.len() as u32).collect();
        let frame = |n: u32| nodes.get(n as usize).map_or(0, |node| node.1);
        by_frame.sort_unstable_by_key(|&n| (frame(n), n));
        let (mut first, mut next) = (vec![0u32; nodes.len()], vec![0u32; nodes.len()]);
        for &node in by_frame.iter().rev() {
            let parent = nodes.get(node as usize).map_or(0, |n| n.0 as usize);
            if let (Some(head), Some(next)) = (first.get_mut(parent), next.get_mut(node as usize)) {
                *next = std::mem::replace(head, node);
            }
        }
        let mut of = vec![0; nodes.len()];
        let mut ordered = Vec::with_capacity(nodes.len());
        let mut stack = vec![(0u32, 0u32)];
        while let Some((node, depth)) = stack.pop() {
            if let Some(slot) = of.get_mut(node as usize) {
                *slot = ordered.len() as u32;
            }
            ordered.push((depth, frame(node)));
            // The sibling waits below the children.
            let later = next.get(node as usize).copied().unwrap_or(0);
            if later != 0 {
                stack.push((later, depth));
            }
            let child = first.get(node as usize).copied().unwrap_or(0);
            if child != 0 {
                stack.push((child, depth + 1));
            }
        }
        Ordered { of, nodes: ordered }
    }
}

impl Ordered {
    /// Adds the tree to the page's data. A depth is written as the number of levels that the node
    /// stands above a child of the node before it: 0 for most.
    pub fn write(&self, to: &mut Columns) {
        let mut last = 0u32;
        let up = self.nodes.iter().skip(1).map(|&(depth, _)| {
            let up = (last + 1).saturating_sub(depth);
            last = depth;
            u64::from(up)
        });
        to.numbers("node.up", up);
        to.numbers("node.frame", self.nodes.iter().skip(1).map(|&(_, frame)| frame.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_profile::{Builder, Path};

    #[test]
    fn depth_first_and_only_what_is_needed() {
        let mut builder = Builder::new();
        let leaf = builder.python_path([("main", "a.py", 1), ("work", "a.py", 2)]);
        builder.python_path([("main", "a.py", 1), ("unused", "a.py", 9)]);
        let other = builder.python_path([("main", "a.py", 1), ("last", "a.py", 3)]);
        let path = |node| Path { node, ..Path::default() };
        builder.process().paths = vec![path(other), path(leaf), path(0)];
        let process = builder.finish();
        let (mut tree, mut frames) = (Tree::new(), Frames::new());
        let of = tree.add(&process, &mut frames, &|f| f.line).unwrap();
        let again = tree.add(&process, &mut frames, &|f| f.line).unwrap();
        assert_eq!(of, again, "the same paths of another process are the same nodes");
        assert_eq!(of[0], UNKNOWN_NODE);
        let ordered = tree.order();
        // The root, unknown, others, main, then its callees in the order of their frames.
        assert_eq!(ordered.nodes, [(0, 0), (1, 0), (1, 1), (1, 2), (2, 3), (2, 4)]);
        assert_eq!(ordered.of[of[leaf as usize] as usize], 4);
        let mut columns = Columns::default();
        ordered.write(&mut columns);
        assert_eq!(columns.bytes[..5], [0, 1, 1, 0, 1]);
    }
}
