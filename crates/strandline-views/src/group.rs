//! Places put together: lines, functions, files.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::merge::Merged;
use crate::place::{Key, Place};

/// What a table has a row for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Call paths.
    Path,
    /// Lines of files, whoever called them.
    Line,
    /// Functions.
    Function,
    /// Files.
    File,
    /// Threads of each process.
    Thread,
    /// Allocators.
    Domain,
    /// Types of objects: of what was in use at the end only, and if the run looked them up.
    Type,
}

impl By {
    /// All of them.
    pub const ALL: [By; 7] =
        [By::Path, By::Line, By::Function, By::File, By::Thread, By::Domain, By::Type];

    /// A word for options and JSON.
    pub fn name(self) -> &'static str {
        match self {
            By::Path => "path",
            By::Line => "line",
            By::Function => "function",
            By::File => "file",
            By::Thread => "thread",
            By::Domain => "domain",
            By::Type => "type",
        }
    }

    /// What a word stands for.
    pub fn of_name(name: &str) -> Option<By> {
        By::ALL.into_iter().find(|by| by.name() == name)
    }

    /// Several of them, for people.
    pub fn title(self) -> &'static str {
        match self {
            By::Path => "call paths",
            By::Line => "lines",
            By::Function => "functions",
            By::File => "files",
            By::Thread => "threads",
            By::Domain => "allocators",
            By::Type => "types",
        }
    }
}

/// A grouping of all places. Group 0 holds what is unknown.
#[derive(Debug)]
pub(crate) struct Groups {
    by: By,
    /// The group of each place.
    pub of_place: Vec<u32>,
    /// One place of each group: it has what all of the group have in common.
    places: Vec<u32>,
}

impl Groups {
    /// By line, function or file; by anything else there is one group only.
    pub fn new(merged: &Merged, by: By) -> Groups {
        match by {
            By::Line => grouped(merged, by, line_key),
            By::Function => grouped(merged, by, |p| Place { line: 0, ..*p }),
            By::File => grouped(merged, by, |p| p.file),
            By::Path | By::Thread | By::Domain | By::Type => grouped(merged, by, |_| ()),
        }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The group of a node of the tree.
    pub fn of_node(&self, merged: &Merged, node: u32) -> u32 {
        self.of_place.get(merged.place_index(node) as usize).copied().unwrap_or(0)
    }

    /// The group that what a node allocated itself counts for. Lines and files are those of
    /// Python: what C code allocates is its caller's, unless no Python called it.
    pub fn of_own(&self, merged: &Merged, node: u32) -> u32 {
        if !matches!(self.by, By::Line | By::File) {
            return self.of_node(merged, node);
        }
        let mut at = node;
        while at != 0 && merged.place_of(at).native {
            at = merged.parent(at);
        }
        self.of_node(merged, if at == 0 { node } else { at })
    }

    pub fn place<'m>(&self, merged: &'m Merged, group: u32) -> Place<'m> {
        merged.place(self.places.get(group as usize).copied().unwrap_or(0))
    }

    /// What the rows of a table say of a group.
    pub fn key<'m>(&self, merged: &'m Merged, group: u32) -> Key<'m> {
        let place = self.place(merged, group);
        match self.by {
            By::Function => Key::Function(place),
            By::File => Key::File(place),
            _ => Key::Line(place),
        }
    }
}

/// A line of a file is one whatever its function. Without a line the function tells more.
fn line_key<'p>(place: &Place<'p>) -> Place<'p> {
    match place.line {
        0 => *place,
        _ => Place { function: "", address: 0, ..*place },
    }
}

fn grouped<'p, K: Eq + Hash>(merged: &Merged<'p>, by: By, key: impl Fn(&Place<'p>) -> K) -> Groups {
    let mut known: FxHashMap<K, u32> = FxHashMap::default();
    let mut places = Vec::new();
    let of_place = merged
        .places()
        .iter()
        .enumerate()
        .map(|(i, place)| {
            *known.entry(key(place)).or_insert_with(|| {
                places.push(i as u32);
                (places.len() - 1) as u32
            })
        })
        .collect();
    Groups { by, of_place, places }
}

#[cfg(test)]
mod tests {
    use strandline_profile::{Amount, Builder, Frame, FrameKind, Path, Profile, Weight};

    use super::*;
    use crate::sums::own;
    use crate::table::own_by_group;

    #[test]
    fn c_code_counts_for_the_line_of_python_that_called_it() {
        let mut builder = Builder::new();
        let line = builder.python_path([("load", "app.py", 7)]);
        let function = builder.string("inflate");
        let file = builder.string("inflate.c");
        let frame = Frame { function, file, line: 12, kind: FrameKind::Native, ..Frame::default() };
        let frame = builder.frame(frame);
        let (inner, alone) = (builder.node(line, frame), builder.node(0, frame));
        for (node, bytes) in [(inner, 100), (alone, 10), (line, 1)] {
            let allocated = Amount { bytes, blocks: 1 };
            builder.process().paths.push(Path { node, allocated, ..Path::default() });
        }
        let profile = Profile { processes: vec![builder.finish()], ..Profile::default() };
        let merged = Merged::new(&profile, None).unwrap();
        let own = own(&merged, Weight::Allocated, |_| true);
        let sums = |by: By| {
            let groups = Groups::new(&merged, by);
            let sums = own_by_group(&merged, &groups, &own);
            let named = |(i, sum): (usize, &Amount)| {
                (groups.place(&merged, i as u32).file.to_owned(), sum.bytes)
            };
            let mut sums: Vec<_> = sums.iter().enumerate().map(named).collect();
            sums.retain(|sum| sum.1 > 0);
            sums.sort();
            sums
        };
        let by_python = vec![("app.py".to_owned(), 101), ("inflate.c".to_owned(), 10)];
        assert_eq!(sums(By::Line), by_python);
        assert_eq!(sums(By::File), by_python);
        let by_itself = vec![("app.py".to_owned(), 1), ("inflate.c".to_owned(), 110)];
        assert_eq!(sums(By::Function), by_itself);
    }
}
