//! The debug hooks of CPython's allocators (`PYTHONMALLOC=debug`, `-X dev`): they put the size of
//! every block and bytes that nobody may touch in front of it.

use strandline_image::Image;

use crate::modules::words;

/// Bytes in front of a block, for a size of 8 bytes (`2 * SST`, Objects/obmalloc.c).
const GUARD: u64 = 16;
/// Blocks that have to look like it.
const ENOUGH: usize = 200;
/// Bytes of writable memory that are looked at.
const LOOKED_AT: u64 = 64 << 20;

/// True if `word` is what stands right in front of a block: the allocator's letter and seven
/// forbidden bytes, 0xfd since 3.8, 0xfb before (Objects/obmalloc.c, `_PyMem_DebugRawAlloc`).
fn is_guard(word: u64) -> bool {
    let [letter, bytes @ ..] = word.to_le_bytes();
    matches!(letter, b'o' | b'm' | b'r') && (bytes == [0xfd; 7] || bytes == [0xfb; 7])
}

/// Bytes that the hooks put in front of every block of the image's interpreters; 0 without hooks.
pub(crate) fn guard(image: &Image) -> u64 {
    let (mut found, mut seen) = (0, 0);
    for (start, bytes) in image.pieces() {
        found += words(start, bytes).filter(|&(_, word)| is_guard(word)).take(ENOUGH).count();
        seen += bytes.len() as u64;
        if found >= ENOUGH {
            return GUARD;
        }
        if seen > LOOKED_AT {
            break;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_told_by_many_guards() {
        let guarded = |n: usize| {
            let one = [0, 0, 0, 0, 0, 0, 0, 32, b'o', 0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd];
            Image::fixture(vec![(0x1000, one.repeat(n))])
        };
        assert_eq!(guard(&guarded(ENOUGH - 1)), 0);
        assert_eq!(guard(&guarded(ENOUGH)), GUARD);
    }
}
