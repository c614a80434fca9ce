//! Which functions work with a global or an attribute of some name, and whether one of them takes
//! things out: told from the names and instructions of their code objects.

use strandline_cpython::{Bytecode, Layout, HIDES};
use strandline_interpreter::{values, Block};

use crate::chunks::Python;
use crate::paths::Paths;

/// Names that a code object has at most, as far as is believed.
const MOST_NAMES: u64 = 1 << 14;
/// Bytes of code that are looked at.
const LONGEST: u64 = 1 << 20;
/// Functions that are named.
const NAMED: usize = 3;
/// Methods that take something out of a container.
const TAKING: [&str; 8] =
    ["pop", "popitem", "popleft", "clear", "remove", "discard", "cache_clear", "__delitem__"];

/// See the module.
#[derive(Debug, Default)]
pub struct Users {
    /// `name() in file`, a few of them, sorted.
    pub functions: Vec<String>,
    /// One of them takes things out, or may.
    pub takes_out: bool,
}

/// The functions that use `name`; a module's own code is none.
pub fn users_of(paths: &Paths<'_>, name: &str) -> Users {
    let mut users = Users::default();
    if name.is_empty() {
        return users;
    }
    for python in paths.pythons() {
        for object in code_objects(paths, python) {
            note(paths, python, object, name, &mut users);
        }
    }
    users.functions.sort();
    users.functions.dedup();
    users.functions.truncate(NAMED);
    users
}

/// Addresses of the code objects.
fn code_objects<'a>(
    paths: &'a Paths<'_>,
    python: &'a Python<'_>,
) -> impl Iterator<Item = u64> + 'a {
    let is_code =
        |block: Block| matches!(block, Block::Object(id) if paths.names().of(id) == "code");
    let ids: Vec<_> = (python.types.base()..)
        .zip(python.types.list())
        .filter(|(_, t)| t.name == "code")
        .map(|(id, _)| Block::Object(id))
        .collect();
    debug_assert!(ids.iter().all(|&block| is_code(block)));
    let front = python.interpreter.guard;
    let small = (0..python.blocks.arenas().len()).flat_map(|i| python.blocks.of_arena(i));
    let small = small.map(|(at, block, _)| (at.start, block));
    let large = paths.chunks().used().map(|(chunk, block)| (chunk.user(), block));
    let all = small.chain(large);
    all.filter(move |(_, block)| ids.contains(block)).map(move |(start, _)| start + front)
}

fn note(paths: &Paths<'_>, python: &Python<'_>, code: u64, name: &str, users: &mut Users) {
    let l = &python.interpreter.layout;
    let Some(names) = names_of(paths, l, code) else { return };
    if !names.iter().any(|n| n == name) {
        return;
    }
    let image = paths.names().image;
    let text = |offset: u16| values::text(image, l, image.word(code + offset as u64)?);
    let own = text(l.code.name).unwrap_or_default();
    if own == "<module>" {
        return;
    }
    let own = l.code.qualname.and_then(text).unwrap_or(own);
    let file = text(l.code.filename).unwrap_or_default();
    users.functions.push(format!("{own}() in {file}"));
    let takes = names.iter().any(|n| TAKING.contains(&n.as_str()));
    users.takes_out |= takes || deletes(paths, l, code);
}

fn names_of(paths: &Paths<'_>, l: &Layout, code: u64) -> Option<Vec<String>> {
    let image = paths.names().image;
    let tuple = image.word(code.checked_add(l.code.names? as u64)?)?;
    let len = image.word(tuple.checked_add(l.object.tuple_len as u64)?)?;
    if len > MOST_NAMES {
        return None;
    }
    let first = tuple.checked_add(l.object.tuple_items as u64)?;
    (0..len).map(|i| values::text(image, l, image.word(first.checked_add(8 * i)?)?)).collect()
}

/// Whether the code has a `del a[b]`, or may have.
fn deletes(paths: &Paths<'_>, l: &Layout, code: u64) -> bool {
    bytecode(paths, l, code)
        .is_some_and(|bytes| instructions(l, &bytes).any(|op| op == l.code.delete_subscr))
}

/// The instructions of some bytecode. Where what an instruction is was written over by another
/// (a debugger's or a profiler's), also what isn't one.
fn instructions<'a>(l: &Layout, bytes: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    // Up to 3.5 instructions with an argument have three bytes, the others one.
    let step = if l.version >= (3, 6) { 2 } else { 1 };
    let caches = l.code.inline_caches;
    let all = bytes.iter().step_by(step);
    let mut end = 0;
    let hidden = all.clone().any(|&op| caches[op as usize] == HIDES);
    all.enumerate()
        .filter(move |&(i, &op)| {
            let is_one = hidden || i >= end;
            if is_one {
                end = i + 1 + caches[op as usize] as usize;
            }
            is_one
        })
        .map(|(_, &op)| op)
}

fn bytecode(paths: &Paths<'_>, l: &Layout, code: u64) -> Option<Vec<u8>> {
    let image = paths.names().image;
    let (start, len) = match l.code.code {
        Bytecode::Object(offset) => {
            let object = image.word(code.checked_add(offset as u64)?)?;
            let len = image.word(object.checked_add(l.bytes.len as u64)?)?;
            (object.checked_add(l.bytes.data as u64)?, len)
        }
        // `ob_size` counts code units of two bytes (Include/cpython/code.h).
        Bytecode::Inline(offset) => {
            let units = image.word(code.checked_add(l.object.tuple_len as u64)?)?;
            (code.checked_add(offset as u64)?, units.checked_mul(2)?)
        }
    };
    let mut bytes = vec![0; usize::try_from(len).ok().filter(|_| len <= LONGEST)?];
    image.read(start, &mut bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: (u8, u8), bytes: &[u8]) -> Vec<u8> {
        instructions(strandline_cpython::layout(version.0, version.1).unwrap(), bytes).collect()
    }

    #[test]
    fn what_is_cached_is_no_instruction() {
        // LOAD_FAST, LOAD_ATTR with nine units of cache that look like DELETE_SUBSCR, RETURN.
        let mut bytes = vec![85, 0, 82, 0];
        bytes.extend([9; 18]);
        bytes.extend([36, 0]);
        assert_eq!(of((3, 13), &bytes), [85, 82, 36]);
        assert_eq!(of((3, 8), &[124, 0, 61, 0]), [124, 61]);
        assert_eq!(of((2, 7), &[124, 0, 0, 61]), [124, 0, 0, 61]);
    }

    #[test]
    fn what_was_written_over_may_be_anything() {
        assert_eq!(of((3, 13), &[254, 0, 82, 0, 9, 9]), [254, 82, 9]);
    }
}
