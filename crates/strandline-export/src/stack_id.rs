//! An id of a call path's texts that is the same on every host and in every run.
//!
//! 128 bits: the first half of SHA-256 over the caller's id (sixteen zeros for the outermost),
//! then function and file, each with its length in bytes before it (4, little-endian), then the
//! line (4, little-endian).

use sha2::{Digest, Sha256};

use crate::tree::{Place, Tree};

/// An id.
pub type StackId = [u8; 16];

/// The id of every node of a tree.
pub fn ids(tree: &Tree<'_>) -> Vec<StackId> {
    let mut ids: Vec<StackId> = Vec::with_capacity(tree.nodes.len());
    ids.push([0; 16]);
    for node in tree.nodes.iter().skip(1) {
        let parent = ids.get(node.parent as usize).copied().unwrap_or_default();
        let place = tree.places.get(node.place as usize);
        ids.push(place.map_or(parent, |place| id(&parent, place)));
    }
    ids
}

fn id(parent: &StackId, place: &Place<'_>) -> StackId {
    let mut hash = Sha256::new_with_prefix(parent);
    for text in [&*place.function, place.file] {
        hash.update((text.len() as u32).to_le_bytes());
        hash.update(text);
    }
    hash.update(place.line.to_le_bytes());
    let mut id = StackId::default();
    id.iter_mut().zip(hash.finalize()).for_each(|(to, byte)| *to = byte);
    id
}

/// An id as 32 hexadecimal digits.
pub fn hex(id: &StackId) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(nibble as usize).copied().unwrap_or('0');
    id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use strandline_profile::Builder;

    use super::*;

    fn id_of(path: &[(&str, &str, u32)]) -> String {
        let mut b = Builder::new();
        // Another order of indices must not matter.
        b.python_path([("other", "x.py", 1)]);
        let node = b.python_path(path.iter().copied());
        let process = b.finish();
        let tree = Tree::of(&process);
        hex(&ids(&tree)[tree.node(node) as usize])
    }

    #[test]
    fn an_id_never_changes() {
        // Computed with Python's hashlib from the description above.
        assert_eq!(id_of(&[("main", "app.py", 3)]), "85f74d8426307b4ed09f346a0c6c8b67");
        let deeper = id_of(&[("main", "app.py", 3), ("load", "io.py", 41)]);
        assert_eq!(deeper, "9dbac908b7111420d1d9ea0f45350b64");
    }

    #[test]
    fn texts_don_t_run_into_each_other() {
        assert_ne!(id_of(&[("ab", "c", 1)]), id_of(&[("a", "bc", 1)]));
    }
}
