//! From the regions of a capture, which the agent writes, to a profile.

use hashbrown::HashMap;

use strandline_capture::layout;
use strandline_capture::read::{self, RawLedger, Regions, Tables};

use crate::build::Builder;
use crate::model::*;

/// The function that stands for call paths which found no room in the agent's tables.
const NO_ROOM: &str = "(call paths that found no room)";

/// The profile of what a capture holds now, without timelines; of [`Meta`] only what the capture
/// knows. With each process the index of its region, and for each of the region's tags the index
/// of its path (`u32::MAX`: none).
pub fn from_capture(regions: &Regions) -> (Profile, Vec<(u32, Vec<u32>)>) {
    let mut profile = Profile {
        meta: Meta {
            temporary_distance: regions.temporary_distance,
            native: regions.options & layout::OPTION_NATIVE != 0,
            async_stacks: regions.options & layout::OPTION_ASYNC != 0,
            ..Meta::default()
        },
        doubts: regions.doubts.sentences(),
        ..Profile::default()
    };
    if regions.unrecorded > 0 {
        profile.doubts.push(format!("{} processes found no room", regions.unrecorded));
    }
    let mut indexes = Vec::new();
    for (index, tables) in &regions.tables {
        let Some(stacks) = &tables.stacks else { continue };
        let (process, paths) = process(tables, stacks);
        if stacks.nodes.is_empty() {
            // The agent's first word there is that entry 0 is used.
            profile.doubts.push(format!(
                "process {}: there was no room for its call paths (ulimit -v); they are missing",
                process.pid
            ));
        }
        if process.totals.overflowed > 0 {
            profile.doubts.push(format!(
                "process {}: there were more call paths than there is room for: {} allocations are \
                 under \"{NO_ROOM}\"",
                process.pid, process.totals.overflowed
            ));
        }
        let abilities = layout::CAN_SITES | layout::CAN_AWAIT;
        if profile.meta.async_stacks && tables.head.abilities & abilities == layout::CAN_SITES {
            profile.doubts.push(format!(
                "process {}: which asyncio tasks await another is not known of this Python: call \
                 paths end at the event loop (--async-stacks reads 3.6 to 3.13)",
                process.pid
            ));
        }
        profile.processes.push(process);
        indexes.push((*index, paths));
    }
    (profile, indexes)
}

fn process(tables: &Tables, stacks: &read::Stacks) -> (Process, Vec<u32>) {
    let mut builder = Builder::with_room(tables.sites.len(), stacks.nodes.len());
    let frames: Vec<u32> =
        tables.sites.iter().map(|site| frame(&mut builder, tables, site)).collect();
    // Nodes with one frame under one parent become one: several sites can be one place.
    let mut nodes = vec![0; stacks.nodes.len()];
    for (i, node) in stacks.nodes.iter().enumerate().skip(1) {
        let parent = nodes.get(node.parent as usize).copied().unwrap_or(0);
        let frame = frames.get(node.site as usize).copied().unwrap_or(0);
        if let Some(to) = nodes.get_mut(i) {
            *to = if frame == 0 { parent } else { builder.node(parent, frame) };
        }
    }
    let no_room = layout::TAG_INDEX_NO_ROOM as usize;
    let left_out = stacks.paths.get(no_room).filter(|path| path.blocks + path.inherited_blocks > 0);
    let left_out = left_out.map(|path| {
        let function = builder.string(NO_ROOM);
        let frame = builder.frame(Frame { function, ..Frame::default() });
        (builder.node(0, frame), path.blocks)
    });
    let modules = modules(&mut builder, tables);
    let process = builder.process();
    process.modules = modules;
    let h = &tables.head;
    process.pid = h.pid;
    process.parent_pid = h.parent_pid;
    process.forked = h.forked != 0;
    process.command = arguments(&h.command);
    process.python = version(h.python);
    process.started = h.started;
    process.state = match h.state {
        layout::STATE_EXITED => State::Exited,
        layout::STATE_REPLACED => State::Replaced,
        _ => State::Running,
    };
    process.threads.extend(stacks.threads.iter().skip(1).map(|t| Thread {
        name: t.name.to_string(),
        tid: t.tid,
        allocations: 0,
    }));
    let index = paths(process, tables, stacks, &nodes, left_out.map_or(0, |(node, _)| node));
    for path in &process.paths {
        if let Some(thread) = process.threads.get_mut(path.thread as usize) {
            let inherited = path.inherited.blocks;
            thread.allocations += path.allocated.blocks.saturating_sub(inherited);
        }
    }
    process.totals =
        Totals { overflowed: left_out.map_or(0, |(_, blocks)| blocks), ..totals(h, stacks) };
    (builder.finish(), index)
}

/// Index of the frame for a site; 0: no code.
fn frame(builder: &mut Builder, tables: &Tables, site: &read::Site) -> u32 {
    let Some(code) = tables.codes.get(site.code as usize).filter(|_| site.code != 0) else {
        return 0;
    };
    let file = builder.string(&code.file);
    if code.native {
        let (kind, address) = (FrameKind::Native, u64::from(site.line));
        return builder.frame(Frame { file, kind, address, ..Frame::default() });
    }
    let function = builder.string(&code.name);
    builder.frame(Frame {
        function,
        file,
        line: site.line,
        first_line: code.first_line,
        ..Frame::default()
    })
}

/// The libraries of native frames.
fn modules(builder: &mut Builder, tables: &Tables) -> Vec<Module> {
    let native = tables.codes.iter().filter(|code| code.native);
    let module = |code: &read::Code| Module {
        file: builder.string(&code.file),
        build_id: bytes(&code.name),
    };
    native.map(module).collect()
}

/// From hexadecimal; empty if it is something else.
fn bytes(hex: &str) -> Vec<u8> {
    let digit = |b: &u8| (*b as char).to_digit(16).map(|d| d as u8);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    hex.as_bytes().chunks(2).map(byte).collect::<Option<_>>().unwrap_or_default()
}

fn arguments(command: &[u8]) -> Vec<String> {
    let text = command.strip_suffix(&[0]).unwrap_or(command);
    if text.is_empty() {
        return Vec::new();
    }
    let words = text.split(|b| *b == 0).take(read::MAX_COMMAND_ARGUMENTS);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn version(number: u32) -> (u8, u8, u8) {
    ((number >> 16) as u8, (number >> 8) as u8, number as u8)
}

fn domain(number: u32) -> Domain {
    match number {
        layout::DOMAIN_MEM => Domain::Mem,
        layout::DOMAIN_RAW => Domain::Raw,
        layout::DOMAIN_MALLOC => Domain::Malloc,
        layout::DOMAIN_MMAP => Domain::Mmap,
        _ => Domain::Object,
    }
}

fn add_classes(to: &mut Vec<u32>, from: &[u32]) {
    let used = from.iter().rposition(|&n| n != 0).map_or(0, |last| last + 1);
    let from = from.get(..used).unwrap_or(from);
    if to.len() < from.len() {
        to.resize(from.len(), 0);
    }
    for (to, from) in to.iter_mut().zip(from) {
        *to = to.saturating_add(*from);
    }
}

/// Fills in the paths; for each tag the index of its path. `left_out` is the node for what found
/// no room.
fn paths(
    process: &mut Process,
    tables: &Tables,
    stacks: &read::Stacks,
    nodes: &[u32],
    left_out: u32,
) -> Vec<u32> {
    // Nearly every tag is a path of its own.
    let most = tables.tags.len();
    let mut known: HashMap<(u32, u32, Domain), usize> = HashMap::with_capacity(most);
    let mut sums: Vec<[Signed; 3]> = Vec::with_capacity(most);
    process.paths.reserve(most);
    let mut index = vec![u32::MAX; tables.tags.len()];
    for (i, (tag, record)) in tables.tags.iter().zip(stacks.paths.iter()).enumerate().skip(1) {
        let inherited = [tag.inherited as u64, record.inherited_blocks];
        let allocated = Amount { bytes: tag.allocated, blocks: record.blocks };
        let freed =
            Amount { bytes: tag.freed.wrapping_add(tag.freed_native), blocks: record.blocks_freed };
        let nothing = Amount::default();
        let counted = allocated != nothing || freed != nothing || inherited != [0; 2];
        if i == layout::TAG_INDEX_PROFILER as usize || !counted {
            continue;
        }
        let node = match i == layout::TAG_INDEX_NO_ROOM as usize {
            true => left_out,
            false => nodes.get(record.node as usize).copied().unwrap_or(0),
        };
        let key = (node, record.thread, domain(record.domain));
        let at = *known.entry(key).or_insert_with(|| {
            let (node, thread, domain) = key;
            process.paths.push(Path { node, thread, domain, ..Path::default() });
            sums.push(Default::default());
            process.paths.len() - 1
        });
        if let Some(index) = index.get_mut(i) {
            *index = at as u32;
        }
        let Some(path) = process.paths.get_mut(at) else { continue };
        if let Some([had, at_peak, at_rss_peak]) = sums.get_mut(at) {
            let [bytes, blocks] = inherited;
            let now = [
                bytes.wrapping_add(allocated.bytes).wrapping_sub(freed.bytes),
                blocks.wrapping_add(allocated.blocks).wrapping_sub(freed.blocks),
            ];
            had.add(inherited);
            at_peak.add(record.at_peak.unwrap_or(now));
            at_rss_peak.add(record.at_rss_peak.unwrap_or(now));
        }
        let [bytes, blocks] = record.temporary;
        path.allocated = path.allocated.plus(allocated);
        path.freed = path.freed.plus(freed);
        path.temporary = path.temporary.plus(Amount { bytes, blocks });
        add_classes(&mut path.sizes, &record.sizes);
        add_classes(&mut path.lifetimes, &record.lifetimes);
    }
    for (path, [had, at_peak, at_rss_peak]) in process.paths.iter_mut().zip(&sums) {
        path.inherited = had.amount();
        path.allocated = path.allocated.plus(path.inherited);
        path.at_peak = at_peak.amount();
        path.at_rss_peak = at_rss_peak.amount();
    }
    index
}

/// A sum of amounts in use: a block can be freed under another tag of the same path than it was
/// allocated under, so that one of both is negative.
#[derive(Default)]
struct Signed([i64; 2]);

impl Signed {
    fn add(&mut self, pair: [u64; 2]) {
        for (sum, n) in self.0.iter_mut().zip(pair) {
            *sum = sum.wrapping_add(n as i64);
        }
    }

    fn amount(&self) -> Amount {
        let [bytes, blocks] = self.0.map(positive);
        Amount { bytes, blocks }
    }
}

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn totals(h: &read::Head, stacks: &read::Stacks) -> Totals {
    let last: &RawLedger = match (h.exit.when, h.latest.when) {
        (0, 0) => &h.start,
        (0, _) => &h.latest,
        _ => &h.exit,
    };
    // Of a program that didn't come to its end the ledger may be old, but not these counters.
    let stranded_arenas = match h.exit.when {
        0 => h.arena_resident - h.block_bytes,
        _ => last.stranded_arenas,
    };
    Totals {
        in_use: positive(h.in_use.saturating_add(h.in_use_native)),
        peak: positive(stacks.peak),
        rss: positive(last.rss - last.profiler),
        rss_peak: positive(stacks.rss_peak.max(last.rss) - last.profiler),
        stranded_arenas: positive(stranded_arenas),
        stranded_heap: positive(last.stranded_heap),
        overflowed: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids() {
        assert_eq!(bytes("00ff1a"), [0, 0xff, 0x1a]);
        for odd in ["", "0", "0x12", "zz", "00f"] {
            assert_eq!(bytes(odd), [0u8; 0], "{odd}");
        }
    }

    #[test]
    fn a_library_is_no_code_object() {
        let code = |file: &str, name: &str, native| read::Code {
            file: file.into(),
            name: name.into(),
            first_line: 0,
            native,
        };
        let tables = Tables {
            codes: vec![
                code("", "", false),
                code("app.py", "main", false),
                code("/lib/libz.so", "ab", true),
            ],
            sites: vec![
                read::Site { code: 0, line: 0 },
                read::Site { code: 1, line: 3 },
                read::Site { code: 2, line: 0x1f0 },
            ],
            ..Tables::default()
        };
        let node = |parent, site| read::Node { parent, site };
        let stacks = read::Stacks {
            nodes: vec![node(0, 0), node(0, 1), node(1, 2)],
            ..read::Stacks::default()
        };
        let (process, _) = process(&tables, &stacks);
        let [_, python, native] = process.frames[..] else { panic!("{:?}", process.frames) };
        assert_eq!((python.kind, python.line), (FrameKind::Python, 3));
        let expected = (FrameKind::Native, 0, 0, 0x1f0);
        assert_eq!((native.kind, native.function, native.line, native.address), expected);
        assert_eq!(process.modules, [Module { file: native.file, build_id: vec![0xab] }]);
        assert_eq!(process.nodes[2].parent, 1);
    }
}
