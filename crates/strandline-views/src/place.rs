//! Places in code by their texts, and call paths made of them.

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use strandline_profile::{Domain, Frame, FrameKind, Process};

use crate::merge::Merged;

/// A line of a function, told apart from others by its texts alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place<'p> {
    /// File (native code: the library); empty: unknown.
    pub file: &'p str,
    /// Line; 0: unknown.
    pub line: u32,
    /// Function; empty: unknown.
    pub function: &'p str,
    /// Machine code, not Python's.
    pub native: bool,
    /// Of native code without a function's name: where in the library it is; else 0.
    pub address: u64,
}

impl<'p> Place<'p> {
    /// The place of a frame of this process.
    pub(crate) fn of(process: &'p Process, frame: &Frame) -> Place<'p> {
        let text = |i: u32| process.strings.get(i as usize).map_or("", String::as_str);
        let (function, file) = (text(frame.function), text(frame.file));
        let native = frame.kind == FrameKind::Native;
        // Instructions of one function are one place to a reader.
        let address = if native && function.is_empty() { frame.address } else { 0 };
        Place { file, line: frame.line, function, native, address }
    }

    /// Nothing is known of it.
    pub fn is_unknown(&self) -> bool {
        self.file.is_empty() && self.function.is_empty() && self.address == 0
    }
}

impl Serialize for Place<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Place", 5)?;
        fields.serialize_field("function", &known(self.function))?;
        fields.serialize_field("file", &known(self.file))?;
        fields.serialize_field("line", &Some(self.line).filter(|&l| l != 0))?;
        fields.serialize_field("native", &self.native)?;
        fields.serialize_field("address", &Some(self.address).filter(|&a| a != 0))?;
        fields.end()
    }
}

/// An empty text is an unknown one.
pub(crate) fn known(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

/// A call path, by its innermost node. It takes no memory of its own: its places are looked up
/// when they are asked for. In JSON an array of places, the outermost first.
#[derive(Clone, Copy)]
pub struct CallPath<'m> {
    pub(crate) merged: &'m Merged<'m>,
    pub(crate) node: u32,
}

impl std::fmt::Debug for CallPath<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.inwards()).finish()
    }
}

impl<'m> CallPath<'m> {
    /// Its places, the innermost first.
    pub fn outwards(self) -> impl Iterator<Item = Place<'m>> {
        let next = move |&node: &u32| Some(self.merged.parent(node)).filter(|&parent| parent != 0);
        std::iter::successors(Some(self.node).filter(|&node| node != 0), next)
            .map(move |node| self.merged.place_of(node))
    }

    /// Its places, the outermost first.
    pub fn inwards(self) -> Vec<Place<'m>> {
        let mut places: Vec<_> = self.outwards().collect();
        places.reverse();
        places
    }
}

impl Serialize for CallPath<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let places = self.inwards();
        let mut seq = to.serialize_seq(Some(places.len()))?;
        for place in &places {
            seq.serialize_element(place)?;
        }
        seq.end()
    }
}

/// What a row stands for.
#[derive(Debug, Clone, Copy)]
pub enum Key<'m> {
    /// A call path; one without places: no code was known to run.
    Path(CallPath<'m>),
    /// A line of a file. The function is one of those that the line belongs to.
    Line(Place<'m>),
    /// A function; its line means nothing.
    Function(Place<'m>),
    /// A file; all else means nothing.
    File(Place<'m>),
    /// A thread of a process.
    Thread {
        /// Its name; empty: unknown.
        name: &'m str,
        /// Kernel's thread id; 0: unknown.
        tid: u32,
        /// The process.
        pid: u32,
    },
    /// An allocator.
    Domain(Domain),
    /// A type of objects, by its name.
    Type(&'m str),
}

impl Serialize for Key<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Key::Path(path) => {
                let mut fields = to.serialize_struct("Key", 1)?;
                fields.serialize_field("path", path)?;
                fields.end()
            }
            Key::Line(place) => place.serialize(to),
            Key::Function(place) => Place { line: 0, ..*place }.serialize(to),
            Key::File(place) => {
                let mut fields = to.serialize_struct("Key", 1)?;
                fields.serialize_field("file", &known(place.file))?;
                fields.end()
            }
            Key::Thread { name, tid, pid } => {
                let mut fields = to.serialize_struct("Key", 3)?;
                fields.serialize_field("thread", &known(name))?;
                fields.serialize_field("tid", &Some(*tid).filter(|&tid| tid != 0))?;
                fields.serialize_field("pid", pid)?;
                fields.end()
            }
            Key::Domain(domain) => {
                let mut fields = to.serialize_struct("Key", 1)?;
                fields.serialize_field("domain", domain_name(*domain))?;
                fields.end()
            }
            Key::Type(name) => {
                let mut fields = to.serialize_struct("Key", 1)?;
                fields.serialize_field("type", name)?;
                fields.end()
            }
        }
    }
}

/// A word for JSON.
pub(crate) fn domain_name(domain: Domain) -> &'static str {
    match domain {
        Domain::Object => "object",
        Domain::Mem => "mem",
        Domain::Raw => "raw",
        Domain::Malloc => "malloc",
        Domain::Mmap => "mmap",
    }
}

/// All of them, in the order of the model.
pub(crate) const DOMAINS: [Domain; 5] =
    [Domain::Object, Domain::Mem, Domain::Raw, Domain::Malloc, Domain::Mmap];
