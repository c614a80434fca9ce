//! Taking the census.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use strandline_image::{Image, Mapping, Source, Usage};
use strandline_interpreter::{find, Block, Doubts, TypeId, NATIVE};
use strandline_malloc::{Heap, Malloc, State};

use crate::arenas;
use crate::chunks::{Chunks, Python};
use crate::class::{Class, Group, Sums};
use crate::count::{name_of, Counts};
use crate::holders::Samples;
use crate::int_blocks::{IntBlock, IntBlocks};
use crate::mappings::{Claimed, Rest};
use crate::marking::Marking;
use crate::model::*;
use crate::owners::Search;
use crate::paths::{Path, Paths};
use crate::returns::Prospect;

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// For how many of the pinning and of the largest objects it is looked for who refers to
    /// them. Each level of the search goes over all memory once.
    pub paths: usize,
    /// Whether it is looked for garbage and for who holds most, which goes over all that is live
    /// several times.
    pub holders: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { paths: 10, holders: false }
    }
}

/// Single objects that are named.
const LARGEST: usize = 10;

/// The largest objects and buffers in chunks.
fn largest(chunks: &Chunks<'_>, pythons: &[Python<'_>]) -> Vec<LargeReport> {
    let mut all: Vec<(u64, u64, TypeId)> = Vec::new();
    for (chunk, block) in chunks.used() {
        let (Block::Object(id) | Block::Owned(id)) = block else { continue };
        if id == NATIVE {
            continue;
        }
        all.push((chunk.size(), chunk.user(), id));
        if all.len() >= 64 * LARGEST {
            all.sort_unstable_by_key(|&(bytes, address, _)| (std::cmp::Reverse(bytes), address));
            all.truncate(LARGEST);
        }
    }
    all.sort_unstable_by_key(|&(bytes, address, _)| (std::cmp::Reverse(bytes), address));
    let report = |(bytes, address, id)| LargeReport {
        address,
        type_name: name_of(pythons, id).unwrap_or_default(),
        bytes,
        path: None,
    };
    all.into_iter().take(LARGEST).map(report).collect()
}

/// Looks for who refers to the pins and to the largest objects, and to the samples, whose paths are
/// returned.
fn name_holders(
    paths: &Paths<'_>,
    most: usize,
    pins: &mut [(Pin, Option<u64>)],
    largest: &mut [LargeReport],
    heaps: &mut [HeapReport],
    samples: Option<&Samples>,
) -> Vec<Option<Path>> {
    let mut wanted: Vec<u64> = samples.into_iter().flat_map(|s| s.addresses()).collect();
    let sampled = wanted.len();
    let mut places: Vec<&mut Option<String>> = Vec::new();
    for (pin, example) in pins.iter_mut().take(most) {
        if let Some(address) = *example {
            wanted.push(address);
            places.push(&mut pin.path);
        }
    }
    for large in largest.iter_mut().take(most) {
        wanted.push(large.address);
        places.push(&mut large.path);
    }
    for last in heaps.iter_mut().take(most).filter_map(|heap| heap.last.as_mut()) {
        if !last.type_name.is_empty() {
            wanted.push(last.address);
            places.push(&mut last.path);
        }
    }
    let mut found = paths.find(&wanted);
    for (place, path) in places.into_iter().zip(found.drain(sampled..)) {
        *place = path.map(|path| paths.text(&path));
    }
    found
}

/// The chunks' bytes by class, and the objects in them.
struct OfMalloc {
    sums: Sums,
    live: Counts,
    dead: Counts,
    /// Free slots of 2.7's blocks without a live object, which could be either's.
    int_or_float: u64,
}

fn count_chunks(
    image: &Image,
    malloc: &Malloc,
    chunks: &Chunks<'_>,
    int_blocks: &HashMap<u64, IntBlock>,
) -> OfMalloc {
    let mut of = OfMalloc {
        sums: Sums::default(),
        live: Counts::default(),
        dead: Counts::default(),
        int_or_float: 0,
    };
    let resident = |from, to| image.resident_bytes(from, to);
    for heap in &malloc.heaps {
        of.sums.add(Class::MallocOverhead, resident(heap.start, heap.start + heap.head_bytes));
    }
    for m in &malloc.mmapped {
        of.sums.add(Class::MallocOverhead, resident(m.base, m.chunk.start()));
    }
    for (chunk, cell) in chunks.all() {
        let (start, end) = (chunk.start(), chunk.end());
        let bytes = resident(start, end);
        if let Some(b) = int_blocks.get(&chunk.user()) {
            let (live, free) = (IntBlocks::bytes(b.live), IntBlocks::bytes(b.free));
            // The block is small: it is resident as a whole, or hardly at all.
            let (live, free) = (live.min(bytes), free.min(bytes.saturating_sub(live)));
            of.sums.add(Class::Objects, live);
            of.sums.add(Class::FreeLists, free);
            of.sums.add(Class::MallocOverhead, bytes - live - free);
            match b.id {
                Some(id) => {
                    of.live.objects(id, b.live, IntBlocks::bytes(b.live));
                    of.dead.objects(id, b.free, IntBlocks::bytes(b.free));
                }
                None => of.int_or_float += b.free,
            }
            continue;
        }
        let class = match chunk.state() {
            State::Tcache => Class::MallocThreadCache,
            state if state.is_hole() => Class::MallocBins,
            State::Top => Class::MallocTop,
            State::InUse | State::Mmapped => match Block::unpack(cell.load(Relaxed)) {
                Block::Object(id) => {
                    of.live.object(id, chunk.size());
                    Class::LargeObjects
                }
                Block::Owned(id) if id != NATIVE => {
                    of.live.buffer(id, chunk.size());
                    Class::LargeBuffers
                }
                Block::Dead(id) => {
                    of.dead.object(id, chunk.size());
                    Class::FreeLists
                }
                _ => Class::MallocInUse,
            },
            _ => Class::MallocOverhead,
        };
        of.sums.add(class, bytes);
    }
    of
}

fn malloc_report(image: &Image, malloc: &Malloc) -> Option<MallocReport> {
    if malloc.arenas.is_empty() {
        return None;
    }
    let totals = malloc.totals();
    let is_main = |heap: &Heap| malloc.arenas.get(heap.arena).is_some_and(|arena| arena.main);
    let of_heaps = |main: bool, which: fn(State) -> bool| {
        let heaps = malloc.heaps.iter().filter(|heap| is_main(heap) == main);
        let chunks = heaps.flat_map(Heap::chunks).filter(|chunk| which(chunk.state()));
        chunks.map(|chunk| image.resident_bytes(chunk.start(), chunk.end())).sum()
    };
    Some(MallocReport {
        thresholds_move: malloc.thresholds.as_ref().map(|t| t.dynamic),
        thread_holes_bytes: of_heaps(false, State::is_hole),
        thread_tops_bytes: of_heaps(false, |state| state == State::Top),
        fast_bins_bytes: of_heaps(true, |state| state == State::Fast),
        arenas: malloc.arenas.len(),
        mmapped_chunks: totals.hblks as usize,
        mmapped_bytes: totals.hblkhd,
        heap_bytes: totals.arena,
        in_use_bytes: totals.uordblks,
        free_bytes: totals.fordblks,
        mmap_threshold_bytes: malloc.thresholds.as_ref().map(|t| t.mmap_threshold),
        trim_threshold_bytes: malloc.thresholds.as_ref().map(|t| t.trim_threshold),
    })
}

/// Whether all memory that may refer to an object was read.
fn can_tell(image: &Image, pythons: &[Python<'_>]) -> bool {
    let swapped = image.mappings().iter().filter_map(|m| m.usage.as_ref()).any(|u| u.swap > 0);
    let left_out = matches!(image.source(), Source::Core { left_out } if *left_out > 0);
    let read = |p: &Python<'_>| !p.blocks.arenas().is_empty();
    !swapped && !left_out && !pythons.is_empty() && pythons.iter().all(read)
}

fn garbage_report(marking: &Marking<'_>, pythons: &[Python<'_>]) -> GarbageReport {
    let types = marking.garbage().report(pythons);
    GarbageReport {
        bytes: types.iter().map(|t| t.bytes).sum(),
        count: types.iter().map(|t| t.count).sum(),
        types,
        collector: marking.collector(),
    }
}

/// Takes the census of an image.
pub fn take(image: &Image, options: &Options) -> Census {
    let mut doubts = Doubts::default();
    let mut pythons = Vec::new();
    for (number, interpreter) in find(image, &mut doubts).into_iter().enumerate() {
        let types = interpreter.types(number);
        let blocks = strandline_interpreter::Blocks::read(image, &interpreter, &types, &mut doubts);
        pythons.push(Python { interpreter, types, blocks });
    }
    let mut ranges: Vec<(u64, u64)> =
        pythons.iter().flat_map(|p| p.blocks.arenas().iter().map(|a| (a.start, a.end()))).collect();
    let without_gil = crate::free_threaded::count(image, &pythons);
    ranges.extend(&without_gil.ranges);
    let malloc = strandline_malloc::read_with(image, &ranges);
    let chunks = Chunks::read(image, &malloc, &pythons);
    let mut int_blocks = HashMap::new();
    if let Some(finder) = IntBlocks::new(image, &pythons) {
        for (chunk, block) in chunks.used() {
            if block == Block::Raw {
                if let Some(b) = finder.at(image, chunk.user(), chunk.usable()) {
                    int_blocks.insert(chunk.user(), b);
                }
            }
        }
    }
    let search = Search::new(image, &pythons, &chunks);
    search.run();

    let mut found = arenas::count(image, &pythons);
    let of_malloc = count_chunks(image, &malloc, &chunks, &int_blocks);
    ranges.extend(malloc.heaps.iter().map(|h| (h.start, h.end)));
    ranges.extend(malloc.mmapped.iter().map(|m| (m.base, m.chunk.end())));
    let mut own = Sums::default();
    for (from, to) in crate::profiler::ranges(image) {
        own.add(Class::Profiler, image.resident_bytes(from, to));
        ranges.push((from, to));
    }
    let claimed = Claimed::new(ranges);
    let mut sums = found.sums;
    sums.add_all(&of_malloc.sums);
    sums.add_all(&without_gil.sums);
    let rest = Rest::count(image, &claimed);
    sums.add_all(&rest.sums);
    sums.add_all(&own);
    let paths = Paths::new(&search, &rest.frames);
    let marking = (options.holders && can_tell(image, &pythons))
        .then(|| Marking::new(&search, paths.functions(), &claimed, &rest.frames));
    let prospect = Prospect {
        image,
        pythons: &pythons,
        malloc: &malloc,
        chunks: &chunks,
        int_blocks: &int_blocks,
    };
    let returns = prospect.run(marking.is_some());
    let samples = marking.as_ref().map(|marking| {
        let mut live = found.live.clone();
        live.add_all(&of_malloc.live);
        Samples::take(marking, &paths, &live)
    });
    let mut largest = largest(&chunks, &pythons);
    let mut heaps = crate::heaps::report(image, &malloc, &chunks, &pythons);
    let ways = name_holders(
        &paths,
        options.paths,
        &mut found.pins,
        &mut largest,
        &mut heaps,
        samples.as_ref(),
    );
    let garbage = marking.as_ref().map(|m| garbage_report(m, &pythons));
    let holders = marking.as_ref().zip(samples).map(|(m, s)| s.holders(m, &paths, &ways));
    for (live, dead) in [(&of_malloc.live, &of_malloc.dead), (&without_gil.live, &without_gil.dead)]
    {
        found.live.add_all(live);
        found.dead.add_all(dead);
    }
    found.arenas.extend(without_gil.arenas);

    let mut free_lists = found.dead.report(&pythons);
    if of_malloc.int_or_float > 0 {
        let bytes = IntBlocks::bytes(of_malloc.int_or_float);
        free_lists.push(TypeReport {
            name: "int or float".to_owned(),
            count: of_malloc.int_or_float,
            bytes,
            buffer_bytes: 0,
        });
        free_lists.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    }
    let mut words: Vec<String> = doubts.list().iter().map(|d| d.to_string()).collect();
    words.extend(malloc.doubts.iter().take(100).map(|d| format!("malloc: {d}")));
    let classes = Class::ALL.into_iter().filter(|&c| sums.get(c) > 0);
    let (pid, paused) = match image.source() {
        Source::Process { pid, paused } => (Some(*pid), *paused),
        _ => (None, None),
    };
    let usage_of = |which: fn(&Mapping) -> bool, pick: fn(&Usage) -> u64| {
        let all = image.mappings().iter().filter(|m| which(m));
        let mut all = all.map(|m| m.usage.as_ref().map(pick));
        all.try_fold(0, |sum, bytes| bytes.map(|bytes| sum + bytes))
    };
    let usage = |pick| usage_of(|_| true, pick);
    let is_private = |m: &Mapping| !m.shared && m.is_anonymous() && !m.path.starts_with("[v");
    Census {
        schema: SCHEMA.to_owned(),
        pid,
        executable: image.facts().executable.clone(),
        command_line: image.facts().command_line.clone(),
        paused_ns: paused.map(|d| d.as_nanos() as u64),
        copied_to_disk: image.facts().copied_to_disk,
        rss_bytes: sums.total(),
        kernel_rss_bytes: usage(|u| u.rss),
        swapped_bytes: usage(|u| u.swap).unwrap_or(0),
        page_table_bytes: image.facts().page_table_bytes,
        huge_page_bytes: usage(|u| u.huge),
        copy_on_write_bytes: usage_of(is_private, |u| u.shared),
        left_out_bytes: match image.source() {
            Source::Core { left_out } => *left_out,
            _ => 0,
        },
        unnamed_bytes: sums.get(Class::Unnamed),
        stranded_bytes: Group::Freed.classes().map(|c| sums.get(c)).sum(),
        classes: classes
            .map(|c| ClassReport {
                name: c.name().to_owned(),
                bytes: sums.get(c),
                text: c.text().to_owned(),
            })
            .collect(),
        interpreters: pythons
            .iter()
            .map(|p| InterpreterReport {
                version: p.interpreter.version.text.clone(),
                module: p.interpreter.module.clone(),
                allocators: p.interpreter.states.len(),
            })
            .collect(),
        types: found.live.report(&pythons),
        imported_code_bytes: found.live.imported_code(&pythons),
        free_lists,
        size_classes: found.sizes,
        arenas: found.arenas,
        pins: found.pins.into_iter().map(|(pin, _)| pin).collect(),
        largest,
        malloc: malloc_report(image, &malloc),
        heaps,
        returns,
        garbage,
        holders: holders.unwrap_or_default(),
        pinned: found.pinned,
        c_chunks: crate::c_code::report(&chunks, &int_blocks),
        mappings: rest.mapped,
        cpu_ms: image.facts().cpu_ms,
        peak_rss_bytes: image.facts().peak_rss_bytes,
        other_allocators: malloc
            .others
            .iter()
            .map(|o| AllocatorReport {
                name: o.name.to_string(),
                mapped_bytes: o.mapped,
                resident_bytes: o.resident,
            })
            .collect(),
        doubt_count: doubts.count() + malloc.doubts.len(),
        doubts: words,
    }
}
