//! From "what runs now" to the tag of a call path.
//!
//! The hash of the frames is looked up in a cache that many threads read and write without a
//! lock: an entry is two words, the second the tag, the first the hash XOR the tag, so that an
//! entry that was torn by another thread matches nothing. Behind it is a map of all hashes that
//! were seen since code was last freed; only a hash that isn't in it has its frames read.
//!
//! Two different paths with one 64-bit hash would be counted as one: with a million paths the
//! chance of that is one in 30 million. A path of hash 0 isn't told from none.

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::{TAG_NATIVE, TAG_WATCH};

use super::{awaiting, native, path_of, stacks, threads};
use crate::lock;
use crate::map::Map;
use crate::memory;
use crate::python::{self, CFRAME, DIRECT, MORE, OBJECT};
use crate::region::region;
use crate::sites::{self, EPOCH, NO_ROOM, TSTATE_EPOCH, UNKNOWN};
use crate::tls::{tls, QUIET};

const WAYS: usize = 4;
const SETS: usize = 1 << 14;

/// Four entries, a cache line.
#[repr(C, align(64))]
struct Set([[AtomicU64; 2]; WAYS]);

static CACHE: [Set; SETS] =
    [const { Set([const { [const { AtomicU64::new(0) }; 2] }; WAYS]) }; SETS];

/// Tags by hash, for the current epoch. Under the agent's lock.
static HASHES: Map = Map::new();
static HASHES_EPOCH: AtomicU32 = AtomicU32::new(0);
/// Nodes by parent and site. Under the agent's lock.
static NODES: Map = Map::new();
/// Tags by all that they stand for. Under the agent's lock.
static TAGS: Map = Map::new();

#[inline(always)]
fn set_of(hash: u64) -> &'static Set {
    // SAFETY: 14 bits index a table of 2^14.
    unsafe { CACHE.get_unchecked((hash >> 50) as usize & (SETS - 1)) }
}

#[inline(always)]
fn cached(hash: u64) -> Option<u32> {
    for [check, tag] in &set_of(hash).0 {
        let tag = tag.load(Relaxed);
        if check.load(Relaxed) ^ tag == hash {
            return Some(tag as u32);
        }
    }
    None
}

/// The newest comes first, so that the first entry that is looked at is nearly always the one. What
/// another thread does to the same entries meanwhile may lose some.
fn keep(hash: u64, tag: u32) {
    let (mut check, mut tag) = (hash ^ tag as u64, tag as u64);
    for [entry_check, entry_tag] in &set_of(hash).0 {
        let older = (entry_check.load(Relaxed), entry_tag.load(Relaxed));
        entry_tag.store(tag, Relaxed);
        entry_check.store(check, Relaxed);
        (check, tag) = older;
    }
}

/// What a hash starts from: all that a tag stands for besides the frames.
#[inline(always)]
fn seed(flags: u32, domain: u32) -> u64 {
    // Thread numbers end far below the highest byte, contexts where the epoch begins.
    let who = tls().context_and_thread() | EPOCH.load(Relaxed) as u64;
    who.wrapping_add(((domain << 4 | flags) as u64) << 56)
}

static HAS_MORE: AtomicBool = AtomicBool::new(false);

/// True if paths have more than the Python frames of the stack.
#[inline(always)]
pub fn has_more() -> bool {
    HAS_MORE.load(Relaxed)
}

/// Paths have more than that. Called before hooks are installed.
pub fn will_have_more() {
    HAS_MORE.store(true, Relaxed);
}

/// True if this thread's state is the one that it was last seen with.
#[inline(always)]
pub fn is_known_thread() -> bool {
    tls().tstate_epoch.get() == TSTATE_EPOCH.load(Relaxed)
}

/// What an allocation now, by a known thread that holds the GIL, is looked up by: for
/// [`with_hash`].
#[inline(always)]
pub fn hash_now<const KIND: u32>(domain: u32) -> u64 {
    let tstate = tls().tstate.get();
    if KIND == MORE {
        return hash_of(tstate, domain, 0);
    }
    python::chain_hash::<KIND>(tstate, seed(0, domain))
}

/// The tag for an allocation now, by a known thread that holds the GIL. `hash`: of [`hash_now`],
/// if no Python code ran since.
#[inline(always)]
pub fn with_hash(hash: u64, domain: u32) -> u32 {
    match cached(hash) {
        Some(tag) => tag,
        None => miss(tls().tstate.get(), domain, Some(hash)),
    }
}

/// The tag for an allocation now, by a thread that holds the GIL.
#[inline(always)]
pub fn now<const KIND: u32>(domain: u32) -> u32 {
    if is_known_thread() {
        with_hash(hash_now::<KIND>(domain), domain)
    } else {
        on_new_thread(domain)
    }
}

#[cold]
fn on_new_thread(domain: u32) -> u32 {
    let tstate = python::current_tstate();
    if tstate == 0 {
        return UNKNOWN;
    }
    sites::note_thread(tstate);
    current(tstate, domain)
}

/// The tag for an allocation now, by a thread that holds the GIL and whose state is `tstate`.
#[inline]
pub fn current(tstate: usize, domain: u32) -> u32 {
    match python::kind() {
        _ if has_more() => with_more(tstate, domain),
        OBJECT => with_gil::<OBJECT>(tstate, domain),
        CFRAME => with_gil::<CFRAME>(tstate, domain),
        DIRECT => with_gil::<DIRECT>(tstate, domain),
        _ => UNKNOWN,
    }
}

#[inline(always)]
fn with_gil<const KIND: u32>(tstate: usize, domain: u32) -> u32 {
    let hash = python::chain_hash::<KIND>(tstate, seed(0, domain));
    cached(hash).unwrap_or_else(|| miss(tstate, domain, None))
}

/// `with_gil` of any kind, with what paths have more.
fn with_more(tstate: usize, domain: u32) -> u32 {
    cached(hash_of(tstate, domain, 0)).unwrap_or_else(|| miss(tstate, domain, None))
}

/// The tag for an allocation of which the cache doesn't know. `hash`: what was looked up, by a known
/// thread.
#[cold]
#[inline(never)]
fn miss(tstate: usize, domain: u32, hash: Option<u64>) -> u32 {
    if tls().flags.get() & QUIET != 0 {
        return UNKNOWN;
    }
    let settled = hash.filter(|_| !has_more() && threads::is_settled());
    sites::note_thread(tstate);
    crate::setup::python_runs(tstate);
    crate::python27::look_again();
    threads::with_gil(tstate);
    // The hash tells the threads apart, and this one may have got its number only now.
    let hash = settled.unwrap_or_else(|| hash_of(tstate, domain, 0));
    resolve(tstate, hash, domain, 0)
}

/// What an allocation by the thread whose state is `tstate` (0: none) is looked up by.
fn hash_of(tstate: usize, domain: u32, flags: u32) -> u64 {
    let start = seed(flags, domain);
    let held = flags & TAG_NATIVE == 0;
    let hash = match python::kind() {
        _ if tstate == 0 => start,
        OBJECT if awaiting::on() => python::chain_hash_with_awaiting::<OBJECT>(tstate, start, held),
        CFRAME if awaiting::on() => python::chain_hash_with_awaiting::<CFRAME>(tstate, start, held),
        DIRECT if awaiting::on() => python::chain_hash_with_awaiting::<DIRECT>(tstate, start, held),
        OBJECT => python::chain_hash::<OBJECT>(tstate, start),
        CFRAME => python::chain_hash::<CFRAME>(tstate, start),
        DIRECT => python::chain_hash::<DIRECT>(tstate, start),
        _ => start,
    };
    if native::on() {
        native::fold(hash)
    } else {
        hash
    }
}

/// The tag for an allocation by a thread that doesn't hold the GIL; its own frames stand still
/// meanwhile.
pub fn current_native(domain: u32) -> u32 {
    let t = tls();
    if t.flags.get() & QUIET != 0 {
        return UNKNOWN;
    }
    let known = t.tstate_epoch.get() == TSTATE_EPOCH.load(Relaxed);
    let tstate = if known { t.tstate.get() } else { sites::note_unknown_thread() };
    threads::without_gil();
    let hash = hash_of(tstate, domain, TAG_NATIVE);
    cached(hash).unwrap_or_else(|| resolve(tstate, hash, domain, TAG_NATIVE))
}

/// The tag for the frames of `tstate`, and makes the cache know it.
fn resolve(tstate: usize, hash: u64, domain: u32, flags: u32) -> u32 {
    let mut fresh = Fresh { codes: [0; MOST_FRESH], count: 0 };
    native::look_for_modules();
    let Some(guard) = lock::lock() else { return UNKNOWN };
    let mut keeps = true;
    // The map has no key 0.
    let key = hash.max(1);
    let tag = match HASHES.get(key).filter(|_| HASHES_EPOCH.load(Relaxed) == EPOCH.load(Relaxed)) {
        Some(tag) => tag,
        None => {
            let walked = if native::on() {
                super::merge::walk(tstate, flags & TAG_NATIVE == 0, &mut fresh)
            } else {
                walk(tstate, flags & TAG_NATIVE == 0, &mut fresh)
            };
            let Some((node, site, exact)) = walked else { return UNKNOWN };
            keeps &= exact;
            let context = tls().context.get();
            let thread = threads::mine();
            let tag = match node {
                NO_NODE => NO_ROOM,
                node => tag_for(What { node, site, domain, context, flags, thread }),
            };
            // What found no room isn't given any in the map of hashes.
            if keeps && tag != NO_ROOM {
                if HASHES_EPOCH.swap(EPOCH.load(Relaxed), Relaxed) != EPOCH.load(Relaxed) {
                    HASHES.clear();
                }
                HASHES.insert(key, tag);
            }
            tag
        }
    };
    if keeps {
        keep(hash, tag);
    }
    drop(guard);
    for &code in fresh.codes.iter().take(fresh.count) {
        sites::watch(code);
    }
    tag
}

/// Code objects that were seen for the first time: they are watched once the lock is free.
pub(super) struct Fresh {
    codes: [usize; MOST_FRESH],
    count: usize,
}

const MOST_FRESH: usize = 64;

impl Fresh {
    /// Sees to it that the end of the code object at `code` is noticed. False: there is no room.
    fn watch(&mut self, code: usize) -> bool {
        sites::known_code(code).is_some() || self.push(code)
    }

    fn push(&mut self, code: usize) -> bool {
        match self.codes.get_mut(self.count) {
            Some(cell) => {
                *cell = code;
                self.count += 1;
                true
            }
            None => false,
        }
    }
}

/// A frame of the last path that was walked, outermost first.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Which instruction of which code object: see `python::key_at`.
    pub(super) key: u64,
    pub(super) node: u32,
    /// The line of the innermost frame up to here that has code of its own.
    pub(super) site: u32,
    /// The code object, see [`short`]; or [`MAY_GET_CODE`], [`HAS_NO_CODE`].
    pub(super) code: u32,
}

/// Of [`Step::code`]: the frame has no code yet.
const MAY_GET_CODE: u32 = 0;
/// Of [`Step::code`]: the frame never has any.
pub(super) const HAS_NO_CODE: u32 = 1;

/// What a code object's address is compared by: two may be the same, so that more is forgotten
/// than has to be.
fn short(code: usize) -> u32 {
    (code >> 4) as u32
}

struct Steps {
    /// The last walk's steps, and how many.
    last: *mut Step,
    count: usize,
    /// Frames of this walk, innermost first.
    frames: *mut usize,
    /// Frames of the deepest walk.
    deepest: usize,
}

struct Locked(UnsafeCell<Steps>);
// SAFETY: used under the agent's lock only.
unsafe impl Sync for Locked {}
static STEPS: Locked =
    Locked(UnsafeCell::new(Steps { last: null_mut(), count: 0, frames: null_mut(), deepest: 0 }));

/// Frames of a path at most; what is further out is left away.
pub(super) const DEEPEST: usize = 1 << 16;

/// The node and the site of the innermost frame, and whether the hash stands for it for good.
/// `None`: no memory. The caller holds the lock.
fn walk(tstate: usize, held: bool, fresh: &mut Fresh) -> Option<(u32, u32, bool)> {
    // SAFETY: the lock is held.
    let steps = unsafe { &mut *STEPS.0.get() };
    if steps.last.is_null() {
        steps.last = memory::map(DEEPEST * core::mem::size_of::<Step>()) as *mut Step;
        steps.frames = memory::map(DEEPEST * 8) as *mut usize;
        if steps.last.is_null() || steps.frames.is_null() {
            return None;
        }
    }
    // SAFETY: both tables have DEEPEST entries.
    let (last, frames) = unsafe {
        (
            core::slice::from_raw_parts_mut(steps.last, DEEPEST),
            core::slice::from_raw_parts_mut(steps.frames, DEEPEST),
        )
    };
    let frame = if tstate == 0 { 0 } else { python::current_frame(tstate) };
    let (depth, whole) = if awaiting::on() {
        frames_with_awaiting(frame, held, frames, fresh)
    } else {
        python::frames_from(frame, frames)
    };
    let frames = frames.get(..depth)?;
    if depth > steps.deepest {
        // What these tables touch is resident from now on.
        memory::add_resident((depth - steps.deepest) * (core::mem::size_of::<Step>() + 8));
        steps.deepest = depth;
    }
    let mut exact = whole;
    // A path that is new is mostly the last one with other frames at its inner end.
    let same = python::frames_at(frames, last.iter().take(steps.count).map(|step| step.key));
    let (mut node, mut site) = match same.checked_sub(1).and_then(|i| last.get(i)) {
        Some(step) => (step.node, step.site),
        None => (0, 0),
    };
    let new = frames.get(..depth - same)?.iter().rev();
    for (&frame, step) in new.zip(last.iter_mut().skip(same)) {
        let key = python::key_at(frame);
        let (to, at, code, stays) = step_of(frame, node, fresh);
        (node, site) = (to, if at == 0 { site } else { at });
        exact &= stays;
        *step = Step { key: if stays { key } else { !key }, node, site, code };
    }
    steps.count = depth;
    Some((node, site, exact))
}

/// `python::frames_from` with the frames of what awaits running tasks. Not all, if what they were
/// looked up by didn't have these yet.
fn frames_with_awaiting(
    mut frame: usize,
    held: bool,
    frames: &mut [usize],
    fresh: &mut Fresh,
) -> (usize, bool) {
    let (mut depth, mut whole, mut inner) = (0, true, awaiting::Inner::NONE);
    let mut put = |frame: usize| match frames.get_mut(depth) {
        Some(slot) => {
            *slot = frame;
            depth += 1;
        }
        None => whole = false,
    };
    let mut learned = false;
    while frame != 0 {
        learned |= step_out(frame, &mut inner, held, fresh, &mut put);
        frame = python::caller_of(frame);
    }
    (depth, whole && !learned)
}

/// Gives `put` what awaits the task that goes on in `frame`, if it is one of `Handle._run`, then
/// `frame`. True if this is the first such frame.
pub(super) fn step_out(
    frame: usize,
    inner: &mut awaiting::Inner,
    held: bool,
    fresh: &mut Fresh,
    put: &mut dyn FnMut(usize),
) -> bool {
    let mut learned = false;
    if awaiting::on() {
        let code = python::code_in(frame);
        learned = awaiting::learn(frame, code, |code| fresh.watch(code));
        if code != 0 && code == awaiting::run() {
            awaiting::frames(frame, *inner, held, put);
        }
        inner.push(frame);
    }
    put(frame);
    learned
}

/// Stands for a node that found no room, and for all that is called from there.
const NO_NODE: u32 = u32::MAX;

/// The node for `frame` called from `parent`, its site (0: no code of its own), its code object
/// ([`Step::code`]), and whether all are so for as long as that isn't freed.
pub(super) fn step_of(frame: usize, parent: u32, fresh: &mut Fresh) -> (u32, u32, u32, bool) {
    if awaiting::is_cut(frame) {
        let code = sites::code_with(&python::Identity::named(awaiting::CUT_NAME));
        let site = sites::site(code, 0);
        return (node_of(parent, site), site, HAS_NO_CODE, true);
    }
    // SAFETY: the caller holds the lock.
    let lately = unsafe { &mut *LATELY.0.get() };
    let key = python::key_at(frame);
    let at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
    if let Some(known) = lately.get(at).filter(|k| k.site != 0 && k.key == key) {
        return (node_of(parent, known.site), known.site, known.code, true);
    }
    let Some(place) = python::place_at(frame) else {
        let code = if python::is_entry(frame) { HAS_NO_CODE } else { MAY_GET_CODE };
        return (parent, 0, code, true);
    };
    let mut watched = true;
    let code = match sites::known_code(place.code) {
        Some(code) => code,
        None if fresh.push(place.code) => sites::code_at(place.code),
        None => {
            // Too many at once: without being watched it can't be remembered.
            watched = false;
            sites::code_with(&python::identity(place.code))
        }
    };
    let site = sites::site(code, place.line_by_cursor());
    let stays = watched && place.exact;
    if let Some(known) = lately.get_mut(at).filter(|_| stays && site != 0) {
        *known = Lately { key, site, code: short(place.code) };
    }
    (node_of(parent, site), site, short(place.code), stays)
}

/// Which line an instruction is of: looking that up in a code object's table takes a while, and
/// a line is on many paths.
#[derive(Clone, Copy)]
struct Lately {
    /// See `python::key_at`.
    key: u64,
    /// 0: nothing is known.
    site: u32,
    /// The code object: see [`short`].
    code: u32,
}

struct Lines(UnsafeCell<[Lately; 1024]>);
// SAFETY: used under the agent's lock only.
unsafe impl Sync for Lines {}
static LATELY: Lines = Lines(UnsafeCell::new([Lately { key: 0, site: 0, code: 0 }; 1024]));

/// The code object at `code` is gone: what was remembered of its instructions is void, and with it
/// what was called from there. The caller holds the lock.
pub fn code_freed(code: usize) {
    // SAFETY: the lock is held.
    let (lately, steps) = unsafe { (&mut *LATELY.0.get(), &mut *STEPS.0.get()) };
    for known in lately.iter_mut().filter(|known| known.code == short(code)) {
        known.site = 0;
    }
    if !steps.last.is_null() {
        // SAFETY: the table has DEEPEST entries, of which `count` are filled.
        let last = unsafe { core::slice::from_raw_parts(steps.last, steps.count) };
        let gone = |step: &Step| step.code == short(code) || step.code == MAY_GET_CODE;
        steps.count = last.iter().position(gone).unwrap_or(steps.count);
    }
}

/// The node for `site` called from `parent`; `NO_NODE` if a table is full.
pub(super) fn node_of(parent: u32, site: u32) -> u32 {
    if site == 0 || parent == NO_NODE {
        return NO_NODE;
    }
    let key = (parent as u64) << 32 | site as u64;
    if let Some(node) = NODES.get(key) {
        return node;
    }
    let s = stacks();
    let node = s.head.nodes.load(Relaxed);
    let Some(n) = s.nodes.get(node as usize) else { return NO_NODE };
    n.parent.store(parent, Relaxed);
    n.site.store(site, Relaxed);
    if !NODES.insert(key, node) {
        return NO_NODE;
    }
    s.head.nodes.store(node + 1, Relaxed);
    node
}

/// All that a tag stands for.
struct What {
    node: u32,
    site: u32,
    thread: u32,
    domain: u32,
    context: u32,
    flags: u32,
}

/// The tag for it. The caller holds the lock.
fn tag_for(what: What) -> u32 {
    // 21 bits of node, 10 of thread, 16 of context, 3 of domain, 2 of flags; +1: 0 isn't allowed.
    let key = ((what.node as u64) << 32
        | (what.thread as u64) << 22
        | (what.context as u64) << 6
        | (what.domain as u64) << 2
        | what.flags as u64)
        + 1;
    if let Some(tag) = TAGS.get(key) {
        return tag;
    }
    let Some(tag) = sites::new_tag(what.site, what.context, what.flags) else { return NO_ROOM };
    let p = path_of(tag);
    p.node.store(what.node, Relaxed);
    p.thread_and_domain.store(what.thread | what.domain << 16, Relaxed);
    if !TAGS.insert(key, tag) {
        return NO_ROOM;
    }
    region().head.tags.store(tag + 1, Relaxed);
    tag
}

/// The tag that stands for the same as `old` and is watched. The caller holds the lock.
pub fn watched(old: u32) -> u32 {
    let t = crate::counters::tag_of(region(), old);
    let p = path_of(old);
    let who = p.thread_and_domain.load(Relaxed);
    tag_for(What {
        node: p.node.load(Relaxed),
        site: t.site.load(Relaxed),
        thread: who & 0xffff,
        domain: who >> 16,
        context: t.context.load(Relaxed),
        flags: t.flags.load(Relaxed) | TAG_WATCH,
    })
}
