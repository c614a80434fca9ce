//! A process's call paths, as stored.

use core::mem::{offset_of, size_of};
use std::io;
use std::sync::Arc;

use super::tables::{Piece, Source, Strings};
use super::{Bytes, Doubts};
use crate::layout::{
    self, end_in_shape, size_in_shape, Histogram as G, Node as N, Path as P, Stacks as S,
    StacksHead as H, Tag, Thread as T, LIFETIME_CLASSES, SIZE_CLASSES,
};

/// [`layout::Stacks`] of one process. Entry 0 of every table is the reserved one.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Stacks {
    pub peak: i64,
    pub rss_peak: i64,
    pub threads: Vec<Thread>,
    pub nodes: Vec<Node>,
    /// One for each of [`super::Tables::tags`].
    pub paths: Paths,
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
    /// Number of allocations by size class.
    pub sizes: [u32; SIZE_CLASSES],
    /// Number of blocks given back by lifetime class.
    pub lifetimes: [u32; LIFETIME_CLASSES],
}

/// The region's own tables that go with the paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tags {
    pub(super) piece: Piece,
    pub(super) inherited: Piece,
    pub(super) count: usize,
}

/// All paths, as stored: they are many, so that each is made sense of when it is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Paths {
    paths: Piece,
    histograms: Piece,
    tags: Tags,
    /// Number of paths, of nodes, of threads.
    counts: [usize; 3],
    /// [`H::peak_state`] and [`H::rss_epoch`].
    state: u32,
    epoch: u32,
}

impl Paths {
    /// The path at `index`.
    pub fn get(&self, index: usize) -> Option<Path> {
        (index < self.counts[0]).then(|| self.path(index))
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Path> + '_ {
        (0..self.counts[0]).map(|i| self.path(i))
    }
}

/// Reads the part that belongs to a region with these tags and so many sites.
pub(super) fn read<B: Bytes + ?Sized>(
    source: &Source<'_, B>,
    tags: Tags,
    sites: usize,
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
        tags.count as u32,
        layout::MAX_TAGS,
        "path counters",
        texts.doubts,
    )?;
    let (histograms, _) = table(
        offset_of!(S, histograms),
        size_of::<G>(),
        head.u32(offset_of!(H, histograms)),
        layout::MAX_TAGS,
        "histograms",
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
        paths: Paths {
            paths,
            histograms,
            tags,
            counts: [paths_n, nodes_n, threads_n],
            state,
            epoch,
        },
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

impl Paths {
    fn path(&self, i: usize) -> Path {
        let (paths, tags) = (&self.paths, &self.tags);
        let [_, nodes, threads] = self.counts;
        let (at, tag) = (i * size_of::<P>(), i * size_of::<Tag>());
        let word = |offset: usize| paths.u64(at + offset);
        let inherited = [tags.inherited.u64(i * 8), word(offset_of!(P, inherited_blocks))];
        let saved = |offset: usize| {
            let [bytes, blocks] = inherited;
            [bytes.wrapping_add(word(offset)), blocks.wrapping_add(word(offset + 8))]
        };
        let state_is = |offset: usize, wanted: u32| tags.piece.u32(tag + offset) == wanted;
        let peak_saved = self.state & 1 != 0 && state_is(offset_of!(Tag, peak_state), self.state);
        let rss_peak_saved = state_is(offset_of!(Tag, rss_epoch), self.epoch);
        let who = paths.u32(at + offset_of!(P, thread_and_domain));
        let blocks = tags.piece.u64(tag + offset_of!(Tag, blocks));
        let blocks_freed = tags
            .piece
            .u64(tag + offset_of!(Tag, blocks_freed))
            .wrapping_add(word(offset_of!(P, blocks_freed_native)));
        let all = All { blocks, blocks_freed, freed: self.freed(tag) };
        let mixture = self.mixture(tags.piece.u32(tag + offset_of!(Tag, shape)), all);
        Path {
            node: below(paths.u32(at + offset_of!(P, node)), nodes),
            thread: below(who & 0xffff, threads),
            domain: who >> 16,
            blocks,
            blocks_freed,
            inherited_blocks: word(offset_of!(P, inherited_blocks)),
            at_peak: peak_saved.then(|| saved(offset_of!(P, at_peak))),
            at_rss_peak: rss_peak_saved.then(|| saved(offset_of!(P, at_rss_peak))),
            temporary: mixture.temporary,
            sizes: mixture.sizes,
            lifetimes: mixture.lifetimes,
        }
    }

    /// Bytes given back, of the tag at `tag`.
    fn freed(&self, tag: usize) -> u64 {
        let word = |offset: usize| self.tags.piece.u64(tag + offset);
        word(offset_of!(Tag, freed)).wrapping_add(word(offset_of!(Tag, freed_native)))
    }

    /// How the blocks of a tag of this shape differ.
    fn mixture(&self, shape: u32, all: All) -> Mixture {
        if shape & layout::SHAPE_SIZE != layout::SHAPE_MIXED {
            let mut sizes = [0; SIZE_CLASSES];
            let mut lifetimes = [0; LIFETIME_CLASSES];
            leave(&mut sizes, size_in_shape(shape), all.blocks);
            leave(&mut lifetimes, end_in_shape(shape), all.blocks_freed);
            let temporary = match shape & layout::SHAPE_TEMPORARY != 0 {
                true => [all.freed, all.blocks_freed],
                false => [0; 2],
            };
            return Mixture { temporary, sizes, lifetimes };
        }
        let from = &self.histograms;
        let at = (shape >> layout::SHAPE_SHIFT) as usize * size_of::<G>();
        let before = from.u32(at + offset_of!(G, shape));
        let mut sizes = classes(from, at + offset_of!(G, sizes));
        let mut lifetimes = classes(from, at + offset_of!(G, lifetimes));
        leave(&mut sizes, size_in_shape(before), all.blocks);
        leave(&mut lifetimes, end_in_shape(before), all.blocks_freed);
        let temporary = [0, 8].map(|word| from.u64(at + offset_of!(G, temporary) + word));
        Mixture { temporary, sizes, lifetimes }
    }
}

/// Number of blocks of a path, of those and the bytes given back.
struct All {
    blocks: u64,
    blocks_freed: u64,
    freed: u64,
}

/// How the blocks of a path differ.
struct Mixture {
    temporary: [u64; 2],
    sizes: [u32; SIZE_CLASSES],
    lifetimes: [u32; LIFETIME_CLASSES],
}

/// Gives the class `usual` what the other ones leave of `all` blocks.
fn leave(counts: &mut [u32], usual: Option<usize>, all: u64) {
    let Some(usual) = usual.filter(|&class| class < counts.len()) else { return };
    counts[usual] = 0;
    let others: u64 = counts.iter().map(|&n| u64::from(n)).sum();
    counts[usual] = u32::try_from(all.saturating_sub(others)).unwrap_or(u32::MAX);
}

/// The counts of all classes.
fn classes<const N: usize>(paths: &Piece, at: usize) -> [u32; N] {
    let mut counts = [0; N];
    for (class, count) in counts.iter_mut().enumerate() {
        *count = paths.u32(at + 4 * class);
    }
    counts
}
