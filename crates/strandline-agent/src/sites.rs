//! From "what runs now" to a tag: the place that an allocation is counted under.
//!
//! The hot path is one look into a direct-mapped cache, keyed by the address of the current
//! instruction (3.11+) or by code object and instruction offset (earlier), and by the set of
//! profiled lines. Only a miss reads the frame, finds the line and looks into maps, under the
//! agent's lock.
//!
//! Code objects and thread states die and their addresses are used again. Each one that was
//! seen gets a *watched* tag on its block; when that block is freed, an epoch moves on and with
//! it everything that was cached by address.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::{Text, TAG_NATIVE, TAG_WATCH};

use crate::lock;
use crate::map::Map;
use crate::python::{self, Identity};
use crate::region::{region, store_text};
use crate::symbols::{self, call};
use crate::tls::{tls, Quiet, QUIET};
use crate::{chunks, counters, pools, stacks};

/// Tag of a block that is watched but was never counted (allocated before the agent saw it).
pub const WATCH_ONLY: u32 = 1;
/// Tag of what can't be attributed: no Python runs, or a table is full.
pub const UNKNOWN: u32 = strandline_capture::layout::TAG_INDEX_UNKNOWN;

/// Tag of what the agent makes the interpreter allocate for the agent itself.
pub const PROFILER: u32 = strandline_capture::layout::TAG_INDEX_PROFILER;

/// Tag of call paths that found no room. Its blocks are watched, should code be among them.
pub const NO_ROOM: u32 = strandline_capture::layout::TAG_INDEX_NO_ROOM;

const CACHE: usize = 2048;

/// One line of the cache: written by GIL holders only.
struct Cached {
    key: AtomicU64,
    /// Context in the low 16 bits, epoch above.
    context: AtomicU32,
    tag: AtomicU32,
}

static SEEN: [Cached; CACHE] = [const {
    Cached { key: AtomicU64::new(0), context: AtomicU32::new(0), tag: AtomicU32::new(0) }
}; CACHE];

/// Moves on (by 1 << 16) whenever a code object that was seen is freed.
pub static EPOCH: AtomicU32 = AtomicU32::new(0);
/// Moves on whenever a thread state that was seen is freed.
pub static TSTATE_EPOCH: AtomicU32 = AtomicU32::new(1);

static CODE_BY_ADDRESS: Map = Map::new();
static CODE_BY_IDENTITY: Map = Map::new();
static SITES: Map = Map::new();
static TAGS: Map = Map::new();
static CONTEXTS: Map = Map::new();
static THREAD_STATES: Map = Map::new();

/// Makes the reserved entries. Called once, before any hook is installed, and in no child.
pub fn start() {
    let r = region();
    for tag in [WATCH_ONLY, PROFILER, NO_ROOM] {
        r.tags[tag as usize].flags.store(TAG_WATCH, Relaxed);
    }
    r.head.tags.store(NO_ROOM + 1, Relaxed);
}

#[inline(always)]
fn slot_of(key: u64) -> &'static Cached {
    let i = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize;
    // SAFETY: 11 bits index a table of 2048.
    unsafe { SEEN.get_unchecked(i & (CACHE - 1)) }
}

/// The tag for an allocation now, by a thread that holds the GIL: its state is the one that it
/// was last seen with, unless that one is gone.
#[inline(always)]
pub fn current_on_this_thread<const KIND: u32>() -> u32 {
    let t = tls();
    if t.tstate_epoch.get() != TSTATE_EPOCH.load(Relaxed) {
        return on_new_thread();
    }
    lookup(t.tstate.get(), python::key_of::<KIND>(t.tstate.get()))
}

#[cold]
fn on_new_thread() -> u32 {
    let tstate = python::current_tstate();
    if tstate == 0 {
        return UNKNOWN;
    }
    note_thread(tstate);
    current(tstate)
}

/// `TSTATE_EPOCH` once threads may have several states each; no thread remembers this one.
const NEVER: u32 = u32::MAX;

/// From now on the interpreter is asked for the thread's state every time.
pub fn never_remember_threads() {
    TSTATE_EPOCH.store(NEVER, Relaxed);
}

/// The tag for an allocation now, by a thread that holds the GIL and whose state is `tstate`.
#[inline]
pub fn current(tstate: usize) -> u32 {
    lookup(tstate, python::key(tstate))
}

#[inline(always)]
fn lookup(tstate: usize, key: u64) -> u32 {
    let wanted = tls().context.get() | EPOCH.load(Relaxed);
    let c = slot_of(key);
    if c.key.load(Relaxed) == key && c.context.load(Relaxed) == wanted {
        return c.tag.load(Relaxed);
    }
    miss(tstate, key, wanted)
}

#[cold]
#[inline(never)]
fn miss(tstate: usize, key: u64, wanted: u32) -> u32 {
    if tls().flags.get() & QUIET != 0 {
        return UNKNOWN;
    }
    note_thread(tstate);
    crate::setup::python_runs(tstate);
    crate::python27::look_again();
    if crate::attach::is() {
        crate::attach::look_again();
    }
    let Some((tag, cacheable)) = resolve(tstate, 0) else { return UNKNOWN };
    if cacheable && key != 0 {
        let c = slot_of(key);
        c.key.store(key, Relaxed);
        c.context.store(wanted, Relaxed);
        c.tag.store(tag, Relaxed);
    }
    tag
}

/// The tag for an allocation by a thread that doesn't hold the GIL; its own frame stands still
/// meanwhile, so one remembered answer per thread does.
#[inline]
pub fn current_native() -> u32 {
    let t = tls();
    if t.flags.get() & QUIET != 0 {
        return UNKNOWN;
    }
    let known = t.tstate_epoch.get() == TSTATE_EPOCH.load(Relaxed);
    let tstate = if known { t.tstate.get() } else { note_unknown_thread() };
    let key = python::key(tstate);
    let wanted = (t.context.get() | EPOCH.load(Relaxed)) as u64;
    if t.native_key.get() == key && t.native_context.get() == wanted && t.native_tag.get() != 0 {
        return t.native_tag.get();
    }
    let Some((tag, _)) = resolve(tstate, TAG_NATIVE) else { return UNKNOWN };
    t.native_key.set(key);
    t.native_context.set(wanted);
    t.native_tag.set(tag);
    tag
}

/// The tag for the line that runs now on `tstate`, and whether the cache may keep it.
fn resolve(tstate: usize, flags: u32) -> Option<(u32, bool)> {
    let context = tls().context.get();
    let guard = lock::lock()?;
    let Some(place) = python::locate(tstate) else {
        return Some((tag(0, context, flags), false));
    };
    let known = CODE_BY_ADDRESS.get(place.code as u64);
    let code = known.unwrap_or_else(|| code_at(place.code));
    let site = site(code, place.line_by_cursor());
    let tag = tag(site, context, flags);
    drop(guard);
    if known.is_none() && code != 0 {
        watch(place.code);
    }
    Some((tag, place.exact))
}

/// The capture's entry for the code object at `address`. The caller holds the lock; if the
/// object is new, it watches it afterwards.
pub fn code_at(address: usize) -> u32 {
    let code = code_with(&python::identity(address));
    if code != 0 {
        CODE_BY_ADDRESS.insert(address as u64, code);
    }
    code
}

/// The capture's entry for the code object at `address`, watched.
pub fn code_entry(address: usize) -> u32 {
    let Some(guard) = lock::lock() else { return 0 };
    if let Some(code) = CODE_BY_ADDRESS.get(address as u64) {
        return code;
    }
    let code = code_at(address);
    drop(guard);
    if code != 0 {
        watch(address);
    }
    code
}

fn hash(parts: &Identity) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64 ^ parts.first_line as u64;
    for bytes in [parts.file(), parts.name()] {
        // The end of a path and the whole of a name differ most; equality is checked anyway.
        for chunk in bytes.rchunks(8).take(8) {
            let mut word = [0u8; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            h = (h ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h ^= h >> 29;
        }
        h ^= bytes.len() as u64;
    }
    h | 1
}

fn same(text: &Text, bytes: &[u8]) -> bool {
    let at = text.offset.load(Relaxed) as usize;
    let len = text.len.load(Relaxed) as usize;
    let strings = &region().strings;
    len == bytes.len()
        && strings.get(at..at + len).is_some_and(|s| {
            // SAFETY: the text belongs to this process alone and doesn't change once stored.
            let stored = unsafe { core::slice::from_raw_parts(s.as_ptr() as *const u8, len) };
            stored == bytes
        })
}

/// The capture's entry for a code object with this identity; 0 if the table is full. The caller
/// holds the lock.
pub fn code_with(identity: &Identity) -> u32 {
    let r = region();
    let mut h = hash(identity);
    while let Some(code) = CODE_BY_IDENTITY.get(h) {
        if let Some(c) = r.codes.get(code as usize) {
            if c.first_line.load(Relaxed) == identity.first_line
                && same(&c.file, identity.file())
                && same(&c.name, identity.name())
            {
                return code;
            }
        }
        h = h.wrapping_add(2);
    }
    let code = r.head.codes.load(Relaxed);
    let Some(c) = r.codes.get(code as usize) else { return 0 };
    // Files repeat: the last code object's is often the same text.
    let last = &r.codes[code as usize - 1].file;
    let file = if same(last, identity.file()) {
        (last.offset.load(Relaxed), last.len.load(Relaxed))
    } else {
        store_text(identity.file())
    };
    c.file.offset.store(file.0, Relaxed);
    c.file.len.store(file.1, Relaxed);
    let name = store_text(identity.name());
    c.name.offset.store(name.0, Relaxed);
    c.name.len.store(name.1, Relaxed);
    c.first_line.store(identity.first_line, Relaxed);
    if !CODE_BY_IDENTITY.insert(h, code) {
        return 0;
    }
    r.head.codes.store(code + 1, Relaxed);
    code
}

/// The capture's entry for a line of a code object; 0 if the table is full. The caller holds the
/// lock.
pub fn site(code: u32, line: u32) -> u32 {
    if code == 0 {
        return 0;
    }
    let key = (code as u64) << 32 | line as u64;
    if let Some(site) = SITES.get(key) {
        return site;
    }
    let r = region();
    let site = r.head.sites.load(Relaxed);
    let Some(s) = r.sites.get(site as usize) else { return 0 };
    s.code.store(code, Relaxed);
    s.line.store(line, Relaxed);
    if !SITES.insert(key, site) {
        return 0;
    }
    r.head.sites.store(site + 1, Relaxed);
    site
}

fn tag(site: u32, context: u32, flags: u32) -> u32 {
    // 19 bits of site, 16 of context, 2 of flags; +1 since key 0 is not allowed.
    let key = ((site as u64) << 32 | (context as u64) << 8 | flags as u64) + 1;
    if let Some(tag) = TAGS.get(key) {
        return tag;
    }
    let Some(tag) = new_tag(site, context, flags) else { return UNKNOWN };
    if !TAGS.insert(key, tag) {
        return UNKNOWN;
    }
    region().head.tags.store(tag + 1, Relaxed);
    tag
}

/// The next free tag, filled in but not yet counted as used; `None` if the table is full. The
/// caller holds the lock.
pub fn new_tag(site: u32, context: u32, flags: u32) -> Option<u32> {
    let r = region();
    let tag = r.head.tags.load(Relaxed);
    let Some(t) = r.tags.get(tag as usize) else {
        r.head.overflowed.fetch_add(1, Relaxed);
        return None;
    };
    t.site.store(site, Relaxed);
    t.context.store(context, Relaxed);
    t.flags.store(flags, Relaxed);
    Some(tag)
}

/// The capture's entry for the code object at `address`, if it was seen there before. The caller
/// holds the lock.
pub fn known_code(address: usize) -> Option<u32> {
    CODE_BY_ADDRESS.get(address as u64)
}

/// The set of lines `parent` plus `slot`. A slot that is in the set already changes nothing:
/// recursion counts once. Falls back to `parent` when the table is full.
pub fn context_with(parent: u32, slot: u32) -> u32 {
    let r = region();
    let key = (parent as u64) << 32 | slot as u64;
    let Some(_guard) = lock::lock() else { return parent };
    if let Some(context) = CONTEXTS.get(key) {
        return context;
    }
    let mut up = parent;
    let mut found = 0;
    while let (true, Some(c)) = (up != 0, r.contexts.get(up as usize)) {
        if c.slot.load(Relaxed) == slot {
            found = parent;
            break;
        }
        up = c.parent.load(Relaxed);
    }
    if found == 0 {
        let context = r.head.contexts.load(Relaxed);
        if context >= Quiet::CONTEXT {
            return parent;
        }
        let Some(c) = r.contexts.get(context as usize) else { return parent };
        c.parent.store(parent, Relaxed);
        c.slot.store(slot, Relaxed);
        r.head.contexts.store(context + 1, Relaxed);
        found = context;
    }
    CONTEXTS.insert(key, found);
    found
}

/// Asks to be told when the block at `block` is freed. Blocks that nobody allocated (static
/// code objects, the main thread's state since 3.12) are never freed. The caller doesn't hold
/// the lock.
pub fn watch(block: usize) {
    let as_watched = |old: u32| {
        let Some(_guard) = lock::lock() else { return old };
        if stacks::on() {
            return stacks::path::watched(old);
        }
        let t = counters::tag_of(region(), old);
        tag(t.site.load(Relaxed), t.context.load(Relaxed), t.flags.load(Relaxed) | TAG_WATCH)
    };
    if pools::in_arena(block) {
        pools::retag(block, as_watched);
    } else if !chunks::retag(block, as_watched) {
        chunks::retag(block - DEBUG_HEADER, as_watched);
    }
}

/// Under PYTHONMALLOC=malloc_debug an object starts this many bytes into its chunk (two words of
/// the debug allocator, Objects/obmalloc.c).
const DEBUG_HEADER: usize = 16;

/// A block with a watched tag is freed: `p` is its address. The caller doesn't hold the lock.
#[cold]
pub fn watched_block_freed(p: usize) {
    let Some(_guard) = lock::lock() else {
        // Inside the agent's own slow path nothing is freed; a signal handler can't free these.
        return;
    };
    object_freed(p);
    object_freed(p + DEBUG_HEADER);
}

/// The code object or thread state at `p`, if one was seen there, is gone.
fn object_freed(p: usize) {
    if CODE_BY_ADDRESS.get(p as u64).is_some() {
        CODE_BY_ADDRESS.remove(p as u64);
        EPOCH.store(EPOCH.load(Relaxed).wrapping_add(1 << 16), Relaxed);
        python::code_freed(p);
        stacks::awaiting::code_freed(p);
        if stacks::on() {
            stacks::path::code_freed(p);
        }
        crate::lines::code_freed(p);
    }
    if THREAD_STATES.get(p as u64).is_some() {
        THREAD_STATES.remove(p as u64);
        let t = tls();
        if t.tstate.get() == p {
            // The usual end of a thread: no other one remembers this state.
            t.tstate.set(0);
            t.tstate_epoch.set(0);
        } else if TSTATE_EPOCH.load(Relaxed) < NEVER - 1 {
            TSTATE_EPOCH.fetch_add(1, Relaxed);
        }
    }
}

/// This thread's state if it is not known yet and the thread holds the GIL, else 0: what is first
/// seen of a C thread that runs Python may be a call of malloc.
pub fn note_unknown_thread() -> usize {
    let current = python::current_tstate();
    let remembered = TSTATE_EPOCH.load(Relaxed) != NEVER;
    // 2.7 keeps what belongs to threads in a list of its own, and calls malloc with its lock held.
    let lockless = python::layout().is_some_and(|l| l.version >= (3, 6));
    if current == 0 || !remembered || !lockless || !symbols::GIL_THIS_THREAD.found() {
        return 0;
    }
    // SAFETY: PyGILState_GetThisThreadState reads thread-local storage, with or without the GIL.
    let mine = unsafe { call!(symbols::GIL_THIS_THREAD, fn() -> usize) };
    if mine != current {
        return 0;
    }
    note_thread(mine);
    mine
}

/// Remembers that this thread's state is `tstate`, and watches for its end.
pub fn note_thread(tstate: usize) {
    let t = tls();
    let epoch = TSTATE_EPOCH.load(Relaxed);
    if t.tstate.get() == tstate && t.tstate_epoch.get() == epoch {
        return;
    }
    let fresh = lock::lock().is_some_and(|_guard| {
        THREAD_STATES.get(tstate as u64).is_none() && THREAD_STATES.insert(tstate as u64, 1)
    });
    if fresh {
        watch(tstate);
    }
    t.tstate.set(tstate);
    // Under NEVER it must not match: 0 is before every epoch.
    t.tstate_epoch.set(if epoch == NEVER { 0 } else { epoch });
}
