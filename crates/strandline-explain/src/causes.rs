//! Why the resident bytes are resident: a census, sorted by reason.

use strandline_census::{Census, Class, Group, HolderReport};

use crate::model::Cause;
use crate::{count, mib};

/// Bytes of the pieces of which 2.7's ints and floats are made: 41 in a block of 1,008 bytes
/// (`struct _intblock`, Objects/intobject.c; N_INTOBJECTS).
const INT_BLOCK: (u64, u64) = (1008, 41 * 24);
/// Causes with less are not worth a line unless nothing else is said, bytes.
const LEAST: u64 = 1;

/// Bytes of a class in a census.
pub(crate) fn class(c: &Census, class: Class) -> u64 {
    c.classes.iter().find(|r| r.name == class.name()).map_or(0, |r| r.bytes)
}

/// Bytes of a group of classes.
pub(crate) fn group(c: &Census, group: Group) -> u64 {
    group.classes().map(|k| class(c, k)).sum()
}

/// Bytes that wait for the collector, as far as it was looked for them.
pub(crate) fn garbage(c: &Census) -> u64 {
    c.garbage.as_ref().map_or(0, |g| g.bytes).min(group(c, Group::Python))
}

/// Whether the collector is known to take the garbage sooner or later: it is on, and has looked at
/// most of what waits before. Objects that outlived its first looks wait for a full one, which
/// comes when their number has grown by a quarter (`long_lived_pending`, Modules/gcmodule.c).
pub(crate) fn collector_keeps_up(c: &Census) -> bool {
    c.garbage.as_ref().is_some_and(|garbage| {
        garbage.collector.is_some_and(|young| {
            let looked = young.threshold > 0 && young.count <= young.threshold;
            young.at_work || looked && young.count * 2 < garbage.count
        })
    })
}

/// Live objects and what they hold, imported code and garbage left out.
pub(crate) fn live(c: &Census) -> u64 {
    let live = [Class::Objects, Class::Buffers, Class::LargeObjects, Class::LargeBuffers];
    let live: u64 = live.into_iter().map(|k| class(c, k)).sum();
    live.saturating_sub(c.imported_code_bytes).saturating_sub(garbage(c))
}

/// What live objects take in a process that does nothing but hold its imports: names, constants,
/// the dicts of modules and classes. Measured on bare interpreters from 2.7 to 3.13 (1.4 to 3 times
/// the code itself), and with numpy and pandas.
pub(crate) fn usual_live(c: &Census) -> u64 {
    3 * c.imported_code_bytes + (1 << 20)
}

/// Memory that C code holds.
pub(crate) fn native(c: &Census) -> u64 {
    class(c, Class::MallocInUse) + class(c, Class::Unnamed)
}

/// Chunks of one size of which C code holds so many that they are no accident.
pub(crate) fn native_series(c: &Census) -> Option<&strandline_census::ChunkReport> {
    const MANY: u64 = 500;
    c.c_chunks
        .iter()
        .filter(|chunks| chunks.count >= MANY)
        .max_by_key(|chunks| chunks.bytes)
        .filter(|chunks| chunks.bytes * 2 >= native(c))
}

/// Files and shared memory.
pub(crate) fn not_python(c: &Census) -> u64 {
    class(c, Class::Files) + class(c, Class::SharedMemory)
}

pub(crate) fn is_27(c: &Census) -> bool {
    c.interpreters.first().is_some_and(|i| i.version.starts_with("2."))
}

/// Dead ints and floats of 2.7, with what their blocks take.
pub(crate) fn int_free_list(c: &Census) -> u64 {
    if !is_27(c) {
        return 0;
    }
    let dead =
        c.free_lists.iter().filter(|t| matches!(t.name.as_str(), "int" | "float" | "int or float"));
    let dead: u64 = dead.map(|t| t.bytes).sum();
    dead.min(class(c, Class::FreeLists)) * INT_BLOCK.0 / INT_BLOCK.1
}

/// Whether nothing is known to bound what an object holds: functions put into it, none takes out,
/// and what is in it stands in memory in the order in which it came.
pub(crate) fn looks_unbounded(h: &HolderReport) -> bool {
    h.is_lasting && !h.functions.is_empty() && !h.takes_out && !was_replaced(h)
}

/// Whether what an object holds was replaced again and again: its values stand in memory in no
/// order.
pub(crate) fn was_replaced(h: &HolderReport) -> bool {
    h.in_order.is_some_and(|part| part < 0.75)
}

/// Names the types that an object holds: `20,000 bytes, 20,000 str`.
pub(crate) fn what_it_holds(h: &HolderReport) -> String {
    let types = h.types.iter().filter(|t| t.count > 0).take(2);
    types.map(|t| format!("{} {}", count(t.count), t.name)).collect::<Vec<_>>().join(", ")
}

struct Causes {
    list: Vec<Cause>,
}

impl Causes {
    fn add(&mut self, name: &'static str, kind: &'static str, bytes: u64, text: String) {
        if bytes >= LEAST {
            self.list.push(Cause { name, bytes, text, kind, overlaps: false });
        }
    }

    fn beside(&mut self, name: &'static str, kind: &'static str, bytes: u64, text: String) {
        if bytes >= LEAST {
            self.list.push(Cause { name, bytes, text, kind, overlaps: true });
        }
    }
}

/// All causes, those with most bytes first. Those that don't overlap add up to RSS. `leaks`: what
/// looks unbounded is.
pub fn causes(c: &Census, leaks: bool) -> Vec<Cause> {
    let mut all = Causes { list: Vec::new() };
    in_use(c, leaks, &mut all);
    freed_by_python(c, &mut all);
    freed_in_malloc(c, &mut all);
    outside(c, &mut all);
    let named: u64 = all.list.iter().map(|cause| cause.bytes).sum();
    let rest = c.rss_bytes.saturating_sub(named);
    all.add("other", "in_use", rest, "headers and remainders of the allocators".to_owned());
    beside(c, &mut all);
    all.list.sort_by(|a, b| (a.overlaps, b.bytes, a.name).cmp(&(b.overlaps, a.bytes, b.name)));
    all.list
}

fn in_use(c: &Census, leaks: bool, all: &mut Causes) {
    let mut left = group(c, Group::Python);
    let mut take = |bytes: u64| {
        let taken = bytes.min(left);
        left -= taken;
        taken
    };
    if let Some(g) = &c.garbage {
        let types = g.types.iter().filter(|t| t.count > 0).take(2);
        let types: Vec<_> = types.map(|t| format!("{} {}", count(t.count), t.name)).collect();
        let text = format!(
            "objects that refer to one another and that nothing else can reach ({}): \
             they wait for the collector",
            types.join(", ")
        );
        all.add("uncollected_cycles", "garbage", take(g.bytes), text);
    }
    let code = take(c.imported_code_bytes);
    all.add(
        "imported_code",
        "in_use",
        code,
        "functions, classes and modules of the interpreter and of all that was imported".to_owned(),
    );
    for h in &c.holders {
        let bytes = take(h.bytes);
        let what = what_it_holds(h);
        if leaks && looks_unbounded(h) {
            let text =
                format!(
                "still referenced: {} ({}) holds {what}; {} works with it, and nothing seems to \
                 take anything out",
                h.path, h.type_name, h.functions.join(", "),
            );
            all.add("leak", "in_use", bytes, text);
        } else {
            let text = format!("still referenced: {} ({}) holds {what}", h.path, h.type_name);
            all.add("referenced", "in_use", bytes, text);
        }
    }
    let types: Vec<_> =
        c.types.iter().take(3).map(|t| format!("{} {}", count(t.count), t.name)).collect();
    let text = format!("other live objects, their buffers and frames (most: {})", types.join(", "));
    all.add("other_objects", "in_use", left, text);
}

fn freed_by_python(c: &Census, all: &mut Causes) {
    let ints = int_free_list(c);
    let text = "dead ints and floats: Python 2.7 keeps their blocks for its next ones, without a \
                bound; a full collection gives them to malloc";
    // What the blocks take beside their ints is counted with malloc's own headers.
    all.add("int_free_list", "freed", ints, text.to_owned());
    let lists = class(c, Class::FreeLists).saturating_sub(ints);
    let names: Vec<_> = c
        .free_lists
        .iter()
        .filter(|t| ints == 0 || !matches!(t.name.as_str(), "int" | "float" | "int or float"))
        .take(3)
        .map(|t| format!("{} {}", count(t.count), t.name))
        .collect();
    let text =
        format!("dead objects that the interpreter keeps for its next ones ({})", names.join(", "));
    all.add("free_lists", "freed", lists, text);
    let pools = class(c, Class::FreePools);
    let blocks = class(c, Class::FreeBlocks);
    let p = &c.pinned;
    let who: Vec<_> =
        p.types.iter().take(2).map(|t| format!("{} {}", count(t.count), t.name)).collect();
    let pinned =
        match p.arenas {
            0 => String::new(),
            n => format!(
            "; {} of {} arenas are less than a quarter full and can't go back for {} blocks in \
             use, {} ({})",
            count(n), count(c.arenas.len() as u64), count(p.blocks), mib(p.bytes), who.join(", "),
        ),
        };
    let text = format!(
        "freed small objects whose neighbours live: {} free blocks in pools that are in use, {} \
         free pools in arenas that are in use{pinned}",
        mib(blocks),
        mib(pools),
    );
    all.add("pymalloc_fragmentation", "freed", pools + blocks, text);
    let text = "arenas without a block in use, which Python keeps for its next objects";
    all.add("empty_arenas", "freed", class(c, Class::FreeArenas), text.to_owned());
}

fn freed_in_malloc(c: &Census, all: &mut Causes) {
    let default = strandline_census::MallocReport::default();
    let m = c.malloc.as_ref().unwrap_or(&default);
    let threads = m.thread_holes_bytes + m.thread_tops_bytes;
    let holes = class(c, Class::MallocBins).saturating_sub(m.thread_holes_bytes);
    let fast = m.fast_bins_bytes.min(holes);
    let holes = holes - fast;
    let last = c.heaps.iter().filter(|h| h.free_bytes > 0).find_map(|h| h.last.as_ref());
    let above = last.map_or_else(String::new, |last| {
        let who = last.path.as_deref().unwrap_or(match last.type_name.as_str() {
            "" => "C code",
            name => name,
        });
        format!("; the last block in use above them is {who}")
    });
    let text = format!(
        "freed memory of malloc below blocks that are in use: free() shortens the heap at its end \
         only, and malloc_trim(0) gives back the pages in between{above}"
    );
    all.add("glibc_free_below_pinned_top", "freed", holes, text);
    let top = class(c, Class::MallocTop).saturating_sub(m.thread_tops_bytes);
    let why = match (m.trim_threshold_bytes, m.mmap_threshold_bytes, m.thresholds_move) {
        (Some(trim), Some(mmap), Some(moves)) => {
            let moved = if moves && mmap > 128 << 10 {
                format!(
                    ", since a freed block of {} raised it: malloc expects more of that size",
                    mib(mmap)
                )
            } else {
                String::new()
            };
            format!("below the {} from which it goes back{moved}", mib(trim))
        }
        _ => "below the size from which it goes back".to_owned(),
    };
    let text = format!("the free end of malloc's heap, {why}");
    all.add("glibc_top_below_trim_threshold", "freed", top, text);
    let text = format!(
        "freed memory in {} arenas that malloc made for threads: only their ends go back by \
         themselves",
        m.arenas.saturating_sub(1)
    );
    all.add("glibc_thread_arenas", "freed", threads, text);
    let text =
        "small freed blocks in malloc's fast bins: put together with their neighbours only at the \
                next large request, or by malloc_trim(0)";
    all.add("glibc_fast_bins", "freed", fast, text.to_owned());
    let text = "freed blocks in the threads' caches of malloc";
    all.add("glibc_thread_caches", "freed", class(c, Class::MallocThreadCache), text.to_owned());
    let text = "stacks of threads, beyond what is in use now";
    all.add("unused_stacks", "freed", class(c, Class::StacksUnused), text.to_owned());
}

fn outside(c: &Census, all: &mut Causes) {
    let series = native_series(c);
    let mut native = class(c, Class::MallocInUse);
    if let Some(chunks) = series {
        let bytes = chunks.bytes.min(native);
        native -= bytes;
        let text = format!(
            "C code holds {} blocks of {} bytes of malloc that no Python object points to",
            count(chunks.count),
            count(chunks.chunk_bytes),
        );
        all.add("native_leak", "in_use", bytes, text);
    }
    let text = "memory of malloc that the interpreter itself and C libraries hold";
    all.add("native_memory", "in_use", native, text.to_owned());
    let file = c.mappings.iter().find(|m| m.class == Class::Files.name());
    let mut files = class(c, Class::Files);
    if let Some(file) = file {
        let bytes = file.bytes.min(files);
        files -= bytes;
        let text = format!(
            "pages of {} that the program mapped: the kernel takes them back when it needs memory",
            file.path
        );
        all.add("file_mapping", "mapped", bytes, text);
    }
    all.add("other_files", "mapped", files, "other mapped files".to_owned());
    let text = "memory that is shared with other processes";
    all.add("shared_memory", "mapped", class(c, Class::SharedMemory), text.to_owned());
    let code = class(c, Class::Code) + class(c, Class::LibraryData) + class(c, Class::Kernel);
    let text = "code and data of the executable and of libraries";
    all.add("libraries", "mapped", code, text.to_owned());
    let text = "stacks of threads, in use";
    all.add("stacks", "in_use", class(c, Class::Stacks), text.to_owned());
    let text = "strandline's own, not there without it";
    all.add("profiler", "mapped", class(c, Class::Profiler), text.to_owned());
    let largest = c.mappings.iter().find(|m| m.class == Class::Unnamed.name());
    let of = match largest.map(|m| m.path.as_str()) {
        None | Some("") => String::new(),
        Some(path) => format!(" (the largest: {path})"),
    };
    let others: Vec<_> = c.other_allocators.iter().map(|o| o.name.as_str()).collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("; {} is loaded, whose heaps aren't read", others.join(", ")),
    };
    let text = format!("private memory that could not be named{of}{others}");
    all.add("unnamed", "unnamed", class(c, Class::Unnamed), text);
}

fn beside(c: &Census, all: &mut Causes) {
    let text = "of these: pages shared with a parent or child since a fork, until one of them \
                writes to them (copy on write)";
    all.beside("copy_on_write", "mapped", c.copy_on_write_bytes.unwrap_or(0), text.to_owned());
    let text = "of these: in huge pages, which are resident as a whole where one byte is used";
    all.beside("huge_pages", "mapped", c.huge_page_bytes.unwrap_or(0), text.to_owned());
}
