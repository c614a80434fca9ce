//! What C code holds of malloc, by the size of its chunks: the little that can be said of memory
//! that no object points to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use foldhash::fast::FixedState;
use strandline_interpreter::{Block, NATIVE};
use strandline_malloc::{Chunk, State};

use crate::chunks::Chunks;
use crate::int_blocks::IntBlock;
use crate::model::ChunkReport;

/// Sizes that are listed.
const MOST: usize = 5;

/// True if the chunk is in use, and by no object.
fn is_of_c(chunk: Chunk, cell: &AtomicU32) -> bool {
    let used = matches!(chunk.state(), State::InUse | State::Mmapped);
    used && matches!(
        Block::unpack(cell.load(Relaxed)),
        Block::Raw | Block::Free | Block::Owned(NATIVE)
    )
}

/// The sizes that take most.
pub fn report(chunks: &Chunks<'_>, int_blocks: &HashMap<u64, IntBlock>) -> Vec<ChunkReport> {
    let mut by_size: HashMap<u64, u64, FixedState> = HashMap::default();
    for (chunk, cell) in chunks.all() {
        if is_of_c(chunk, cell) && !int_blocks.contains_key(&chunk.user()) {
            *by_size.entry(chunk.size()).or_default() += 1;
        }
    }
    let report =
        |(chunk_bytes, count)| ChunkReport { chunk_bytes, count, bytes: chunk_bytes * count };
    let mut all: Vec<_> = by_size.into_iter().map(report).collect();
    all.sort_unstable_by_key(|r| (std::cmp::Reverse(r.bytes), r.chunk_bytes));
    all.truncate(MOST);
    all
}
