//! A process's call paths, as stored.

use core::mem::{offset_of, size_of};
use std::io;
use std::sync::Arc;

use super::tables::{Piece, Source, Strings};
use super::{Bytes, Doubts};
use crate::layout::{self, Node as N, Path as P, Stacks as S, StacksHead as H, Thread as T};

/// [`layout::Stacks`] of one process. Entry 0 of every table is the reserved one.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Stacks {
    pub peak: i64,
    pub rss_peak: i64,
    pub threads: Vec<Thread>,
    pub nodes: Vec<Node>,
    /// One for each of [`super::Tables::tags`].
    pub paths: Vec<Path>,
}

/// [`layout::Thread`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Thread {
    pub name: Arc<str>,
    pub tid: u32,
}

/// [`layout::Node`]; `parent` is smaller than the entry's own index, `site` is within its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Node {
    pub parent: u32,
    pub site: u32,
}

/// [`layout::Path`]; indices are within their tables, pairs are bytes and blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Path {
    pub node: u32,
    pub thread: u32,
    pub domain: u32,
    pub blocks: u64,
    pub blocks_freed: u64,
    pub inherited_blocks: u64,
    /// In use at the peak; `None`: what is in use now.
    pub at_peak: Option<[u64; 2]>,
    /// In use at the highest RSS; `None`: what is in use now.
    pub at_rss_peak: Option<[u64; 2]>,
    pub temporary: [u64; 2],
    /// By size class, as many as are needed.
    pub sizes: Vec<u32>,
    /// By lifetime class, as many as are needed.
    pub lifetimes: Vec<u32>,
}

/// Reads the part that belongs to a region. `tags` and `sites` are the numbers of the region's.
pub(super) fn read<B: Bytes + ?Sized>(
    source: &Source<'_, B>,
    (tags, sites): (usize, usize),
    texts: &mut Strings<'_>,
) -> io::Result<Stacks> {
    let head = Piece::read(source.bytes, source.base, size_of::<H>())?;
    let table = |offset: usize, entry: usize, count: u32, max: usize, what, doubts: &mut Doubts| {
        source.table(offset, entry, count, max, what, doubts)
    };
    let (threads, threads_n) = table(
        offset_of!(S, threads),
        size_of::<T>(),
        head.u32(offset_of!(H, threads)),
        layout::MAX_THREADS,
        "threads",
        texts.doubts,
    )?;
    let (nodes, nodes_n) = table(
        offset_of!(S, nodes),
        size_of::<N>(),
        head.u32(offset_of!(H, nodes)),
        layout::MAX_NODES,
        "call paths",
        texts.doubts,
    )?;
    let (paths, paths_n) = table(
        offset_of!(S, paths),
        size_of::<P>(),
        tags as u32,
        layout::MAX_TAGS,
        "path counters",
        texts.doubts,
    )?;
    let state = head.u32(offset_of!(H, peak_state));
    let epoch = head.u32(offset_of!(H, rss_epoch));
    Ok(Stacks {
        peak: head.i64(offset_of!(H, peak)),
        rss_peak: head.i64(offset_of!(H, rss_peak)),
        threads: (0..threads_n)
            .map(|i| Thread {
                name: texts.text(&threads, i * size_of::<T>() + offset_of!(T, name)),
                tid: threads.u32(i * size_of::<T>() + offset_of!(T, tid)),
            })
            .collect(),
        nodes: (0..nodes_n).map(|i| node(&nodes, i, sites)).collect(),
        paths: (0..paths_n)
            .map(|i| path(&paths, i, (nodes_n, threads_n), (state, epoch)))
            .collect(),
    })
}

/// What a table that is still being filled refers to may be newer than what was read of another:
/// it is put under 0, without a doubt.
fn below(index: u32, count: usize) -> u32 {
    if (index as usize) < count {
        index
    } else {
        0
    }
}

fn node(nodes: &Piece, i: usize, sites: usize) -> Node {
    let at = i * size_of::<N>();
    Node {
        parent: below(nodes.u32(at + offset_of!(N, parent)), i.max(1)),
        site: below(nodes.u32(at + offset_of!(N, site)), sites),
    }
}

fn path(
    paths: &Piece,
    i: usize,
    (nodes, threads): (usize, usize),
    (state, epoch): (u32, u32),
) -> Path {
    let at = i * size_of::<P>();
    let pair = |offset: usize| [paths.u64(at + offset), paths.u64(at + offset + 8)];
    let classes = |offset: usize, count: usize| {
        let all = (0..count).map(|c| paths.u32(at + offset + 4 * c));
        let mut all: Vec<u32> = all.collect();
        let used = all.iter().rposition(|&n| n != 0).map_or(0, |last| last + 1);
        all.truncate(used);
        all
    };
    let word = |offset: usize| paths.u64(at + offset);
    let saved = state & 1 != 0 && paths.u32(at + offset_of!(P, peak_state)) == state;
    let saved_rss = paths.u32(at + offset_of!(P, rss_epoch)) == epoch;
    Path {
        node: below(paths.u32(at + offset_of!(P, node)), nodes),
        thread: below(paths.u32(at + offset_of!(P, thread)), threads),
        domain: paths.u32(at + offset_of!(P, domain)),
        blocks: word(offset_of!(P, blocks)),
        blocks_freed: word(offset_of!(P, blocks_freed))
            .wrapping_add(word(offset_of!(P, blocks_freed_native))),
        inherited_blocks: word(offset_of!(P, inherited_blocks)),
        at_peak: saved.then(|| pair(offset_of!(P, at_peak))),
        at_rss_peak: saved_rss.then(|| pair(offset_of!(P, at_rss_peak))),
        temporary: pair(offset_of!(P, temporary)),
        sizes: classes(offset_of!(P, sizes), layout::SIZE_CLASSES),
        lifetimes: classes(offset_of!(P, lifetimes), layout::LIFETIME_CLASSES),
    }
}
