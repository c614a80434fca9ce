//! The call paths of several processes as one tree.

use rustc_hash::FxHashMap;
use strandline_profile::{Path, Process, Profile, Thread};

use crate::error::{named, ViewError};
use crate::place::{CallPath, Place};

/// A place called from its parent's.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    parent: u32,
    place: u32,
}

/// One process of the tree.
#[derive(Debug)]
pub(crate) struct Part<'p> {
    pub process: &'p Process,
    /// Which of the profiles it is of.
    pub side: usize,
    /// The tree's node for each of the process's own.
    nodes: Vec<u32>,
}

/// What one call path of one process allocated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'m> {
    /// Index of the process among the parts.
    pub part: usize,
    /// Which of the profiles it is of.
    pub side: usize,
    /// Node of the tree.
    pub node: u32,
    pub path: &'m Path,
    pub thread: Option<&'m Thread>,
}

/// The call paths of the chosen processes of one or two profiles as one tree. Paths with the same
/// texts are the same, whichever process they come from.
#[derive(Debug)]
pub struct Merged<'p> {
    profiles: Vec<&'p Profile>,
    places: Vec<Place<'p>>,
    nodes: Vec<Node>,
    parts: Vec<Part<'p>>,
}

impl<'p> Merged<'p> {
    /// The tree of all processes, or of one.
    pub fn new(profile: &'p Profile, process: Option<u32>) -> Result<Merged<'p>, ViewError> {
        Merged::of(&[profile], process)
    }

    /// One tree of all processes of several profiles, or of those with this id.
    pub fn of(profiles: &[&'p Profile], process: Option<u32>) -> Result<Merged<'p>, ViewError> {
        let mut merged = Merged {
            profiles: profiles.to_vec(),
            places: vec![Place::default()],
            nodes: vec![Node::default()],
            parts: Vec::new(),
        };
        let mut known_places: FxHashMap<Place<'p>, u32> = FxHashMap::default();
        known_places.insert(Place::default(), 0);
        let mut known_nodes: FxHashMap<(u32, u32), u32> = FxHashMap::default();
        for (side, profile) in profiles.iter().enumerate() {
            let before = merged.parts.len();
            for p in profile.processes.iter().filter(|p| process.is_none_or(|pid| pid == p.pid)) {
                merged.add(side, p, &mut known_places, &mut known_nodes);
            }
            if let Some(pid) = process.filter(|_| merged.parts.len() == before) {
                let known = named(profile.processes.iter().map(|p| p.pid.to_string()));
                return Err(ViewError::NoProcess { pid, known });
            }
        }
        Ok(merged)
    }

    fn add(
        &mut self,
        side: usize,
        process: &'p Process,
        known_places: &mut FxHashMap<Place<'p>, u32>,
        known_nodes: &mut FxHashMap<(u32, u32), u32>,
    ) {
        let places: Vec<u32> = process
            .frames
            .iter()
            .map(|frame| {
                let place = Place::of(process, frame);
                *known_places.entry(place).or_insert_with(|| {
                    self.places.push(place);
                    (self.places.len() - 1) as u32
                })
            })
            .collect();
        known_nodes.reserve(process.nodes.len());
        self.nodes.reserve(process.nodes.len());
        // The root stays the root; parents stand before their children, so they are known.
        let mut nodes: Vec<u32> = Vec::with_capacity(process.nodes.len());
        for (i, node) in process.nodes.iter().enumerate() {
            if i == 0 {
                nodes.push(0);
                continue;
            }
            let parent = nodes.get(node.parent as usize).copied().unwrap_or(0);
            let place = places.get(node.frame as usize).copied().unwrap_or(0);
            let index = *known_nodes.entry((parent, place)).or_insert_with(|| {
                self.nodes.push(Node { parent, place });
                (self.nodes.len() - 1) as u32
            });
            nodes.push(index);
        }
        self.parts.push(Part { process, side, nodes });
    }

    /// The profiles that it is made of.
    pub fn profiles(&self) -> &[&'p Profile] {
        &self.profiles
    }

    pub(crate) fn parts(&self) -> &[Part<'p>] {
        &self.parts
    }

    /// Every call path of every process.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.parts.iter().enumerate().flat_map(|(i, part)| {
            part.process.paths.iter().map(move |path| Entry {
                part: i,
                side: part.side,
                node: part.nodes.get(path.node as usize).copied().unwrap_or(0),
                path,
                thread: part.process.threads.get(path.thread as usize),
            })
        })
    }

    /// Number of nodes, the root included.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The node that this one is called from; of the root the root.
    pub(crate) fn parent(&self, node: u32) -> u32 {
        self.nodes.get(node as usize).map_or(0, |n| n.parent)
    }

    /// Index of a node's place.
    pub(crate) fn place_index(&self, node: u32) -> u32 {
        self.nodes.get(node as usize).map_or(0, |n| n.place)
    }

    /// All places; entry 0 is unknown.
    pub(crate) fn places(&self) -> &[Place<'p>] {
        &self.places
    }

    pub(crate) fn place(&self, index: u32) -> Place<'p> {
        self.places.get(index as usize).copied().unwrap_or_default()
    }

    pub(crate) fn place_of(&self, node: u32) -> Place<'p> {
        self.place(self.place_index(node))
    }

    pub(crate) fn call_path(&self, node: u32) -> CallPath<'_> {
        CallPath { merged: self, node }
    }

    /// An error if no thread has this name or id.
    pub fn check_thread(&self, name: &str) -> Result<(), ViewError> {
        let threads = || self.parts.iter().flat_map(|part| &part.process.threads);
        if threads().any(|thread| is_thread(thread, name)) {
            return Ok(());
        }
        let mut names: Vec<String> =
            threads().map(thread_name).filter(|name| !name.is_empty()).collect();
        names.sort();
        names.dedup();
        Err(ViewError::NoThread { name: name.to_owned(), known: named(names) })
    }
}

fn thread_name(thread: &Thread) -> String {
    match (thread.name.as_str(), thread.tid) {
        ("", 0) => String::new(),
        ("", tid) => tid.to_string(),
        (name, _) => name.to_owned(),
    }
}

/// True if the thread has this name, or this id.
pub(crate) fn is_thread(thread: &Thread, name: &str) -> bool {
    (!thread.name.is_empty() && thread.name == name)
        || (thread.tid != 0 && name.parse() == Ok(thread.tid))
}
