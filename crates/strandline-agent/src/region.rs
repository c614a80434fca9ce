//! This process's part of the capture: mapping it, and handing it over at a fork.

use core::cell::UnsafeCell;
use core::mem::{offset_of, size_of, MaybeUninit};
use core::ptr::{addr_of, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::Relaxed};

use strandline_capture::layout::{self, Events, Header, Region, Stacks};

use crate::memory::PAGE;
use crate::stacks::{self, events};

static HEADER: AtomicPtr<Header> = AtomicPtr::new(null_mut());
/// The address range that the region is mapped over: a static, so that every access is relative
/// to the instruction and needs no pointer. Untouched zero pages until then.
#[repr(align(4096))]
struct Place(UnsafeCell<MaybeUninit<Region>>);
// SAFETY: all fields of a Region are atomics.
unsafe impl Sync for Place {}
static PLACE: Place = Place(UnsafeCell::new(MaybeUninit::zeroed()));
static CLAIMED: AtomicBool = AtomicBool::new(false);
static INDEX: AtomicU32 = AtomicU32::new(0);

/// The region; private zero pages if none is claimed.
#[inline(always)]
pub fn region() -> &'static Region {
    // SAFETY: zero pages or a mapping of the capture's; all fields are atomics, for which every
    // bit pattern is valid.
    unsafe { &*(PLACE.0.get() as *const Region) }
}

fn place() -> *mut u8 {
    PLACE.0.get() as *mut u8
}

/// True once a region is mapped.
#[inline(always)]
pub fn claimed() -> bool {
    CLAIMED.load(Relaxed)
}

/// The capture's header, if one is mapped.
pub fn header() -> Option<&'static Header> {
    let h = HEADER.load(Relaxed);
    // SAFETY: mapped for the life of the process when not null.
    (!h.is_null()).then(|| unsafe { &*h })
}

/// `OPTION_*` bits.
pub fn options() -> u32 {
    header().map_or(0, |h| h.options)
}

fn map_shared(fd: i32, offset: usize, bytes: usize, at: *mut u8) -> *mut u8 {
    let fixed = if at.is_null() { 0 } else { libc::MAP_FIXED };
    // SAFETY: maps a file range at a free address, or over this module's own mapping (`at`).
    let p = unsafe {
        libc::syscall(
            libc::SYS_mmap,
            at,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE | fixed,
            fd as isize,
            offset,
        )
    };
    if p == -1 {
        null_mut()
    } else {
        p as usize as *mut u8
    }
}

/// Opens the capture at `path` and checks its header. The descriptor is closed again.
fn open(path: *const libc::c_char) -> i32 {
    // SAFETY: `path` is a C string that the caller owns; open(2) has no other precondition.
    unsafe {
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_RDWR | libc::O_CLOEXEC) as i32
    }
}

fn close(fd: i32) {
    // SAFETY: closes a descriptor that this module opened.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

/// Maps the capture's header and claims a region in it; false if the process runs unrecorded
/// (no capture, a wrong one, no memory, no region left).
pub fn claim(path: *const libc::c_char) -> bool {
    let fd = open(path);
    if fd < 0 {
        return false;
    }
    let ok = claim_from(fd);
    close(fd);
    ok
}

fn claim_from(fd: i32) -> bool {
    let h = map_shared(fd, 0, layout::HEADER_BYTES, null_mut()) as *mut Header;
    if h.is_null() {
        return false;
    }
    // SAFETY: just mapped; the file is at least as long as its header or we would not have been
    // given its name, and the fields are plain integers.
    let header = unsafe { &*h };
    if header.magic != layout::MAGIC || header.version != layout::VERSION {
        return false;
    }
    HEADER.store(h, Relaxed);
    if header.options & layout::OPTION_FOLLOW == 0 && header.regions.load(Relaxed) != 0 {
        // Only the first Python is wanted.
        return false;
    }
    let Some(offset) = take_offset(header) else { return false };
    if map_shared(fd, offset, size_of::<Region>(), place()).is_null() {
        return false;
    }
    CLAIMED.store(true, Relaxed);
    start_tables(region());
    if header.options & layout::OPTION_STACKS != 0 {
        let p = map_shared(fd, offset + layout::REGION_STRIDE, size_of::<Stacks>(), null_mut());
        if !p.is_null() {
            stacks::start(p as *mut Stacks, header.temporary_distance);
            if header.options & layout::OPTION_EVENTS != 0 {
                let offset = events_offset(offset);
                events::start(map_shared(fd, offset, size_of::<Events>(), null_mut()), 0);
            }
        }
    }
    true
}

/// Records into private memory, which [`write_to`] copies; false if there is none.
pub fn claim_private() -> bool {
    let h = crate::memory::map(layout::HEADER_BYTES) as *mut Header;
    if h.is_null() {
        return false;
    }
    // SAFETY: fresh memory of the header's size that nobody else knows of yet.
    unsafe {
        (*h).magic = layout::MAGIC;
        (*h).version = layout::VERSION;
        (*h).room = 1;
        (*h).regions.store(1, Relaxed);
    }
    HEADER.store(h, Relaxed);
    CLAIMED.store(true, Relaxed);
    start_tables(region());
    true
}

/// Copies what is recorded of this process to the empty file `fd`, as a capture of one region. False
/// if that can't be, or call paths are recorded, which are no part of it. The caller holds the GIL;
/// threads without it may go on counting meanwhile.
pub fn write_to(fd: i32) -> bool {
    let Some(header) = header().filter(|_| !stacks::on()) else { return false };
    let r = region();
    let h = &r.head;
    let used = |count: &AtomicU32, size: usize| count.load(Relaxed) as usize * size;
    let base = addr_of!(*r) as usize;
    let parts = [
        (addr_of!(r.head) as usize, size_of::<layout::RegionHead>()),
        (addr_of!(r.functions) as usize, used(&h.functions, size_of::<layout::Function>())),
        (addr_of!(r.slots) as usize, used(&h.slots, size_of::<layout::Slot>())),
        (addr_of!(r.contexts) as usize, used(&h.contexts, size_of::<layout::Context>())),
        (addr_of!(r.codes) as usize, used(&h.codes, size_of::<layout::Code>())),
        (addr_of!(r.sites) as usize, used(&h.sites, size_of::<layout::Site>())),
        (addr_of!(r.tags) as usize, used(&h.tags, size_of::<layout::Tag>())),
        (addr_of!(r.strings) as usize, used(&h.strings, 1)),
    ];
    let end = layout::HEADER_BYTES + layout::REGION_STRIDE;
    let one = 1u32;
    let one = addr_of!(one) as usize;
    // SAFETY: ftruncate(2) on a descriptor of the caller's.
    let sized = unsafe { libc::ftruncate(fd, end as libc::off_t) } == 0;
    sized
        && write_at(fd, addr_of!(*header) as usize, size_of::<Header>(), 0)
        // The capture of a run may have the regions of other processes, too.
        && write_at(fd, one, size_of::<u32>(), offset_of!(Header, regions))
        && parts.iter().all(|(from, n)| {
            let n = (*n).min(size_of::<Region>() - (from - base));
            write_at(fd, *from, n, layout::HEADER_BYTES + from - base)
        })
}

/// Writes `n` bytes at `from` to offset `to` of a file.
fn write_at(fd: i32, mut from: usize, mut n: usize, mut to: usize) -> bool {
    while n > 0 {
        // SAFETY: pwrite(2) reads bytes of the header or the region, which stay mapped.
        let done = unsafe { libc::pwrite(fd, from as *const libc::c_void, n, to as libc::off_t) };
        if done <= 0 {
            return false;
        }
        (from, n, to) = (from + done as usize, n - done as usize, to + done as usize);
    }
    true
}

/// From now on counters go to a private copy: the capture keeps what it says.
pub fn detach(path: *const libc::c_char) {
    let fd = open(path);
    let at = place();
    let offset = offset_of(INDEX.load(Relaxed));
    make_private(fd, offset, size_of::<Region>(), at);
    if stacks::on() {
        let at = stacks::place() as *mut u8;
        make_private(fd, offset + layout::REGION_STRIDE, size_of::<Stacks>(), at);
    }
    if fd >= 0 {
        close(fd);
    }
}

/// Replaces one of the shared mappings, at the same place.
fn make_private(fd: i32, offset: usize, bytes: usize, at: *mut u8) {
    // SAFETY: replaces this module's own mapping, at the same place, by a private view of the
    // same bytes; or, if the capture can't be opened any more, by empty memory.
    unsafe {
        libc::syscall(
            libc::SYS_mmap,
            at,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE
                | libc::MAP_NORESERVE
                | libc::MAP_FIXED
                | if fd < 0 { libc::MAP_ANONYMOUS } else { 0 },
            fd as isize,
            offset,
        );
    }
}

/// Offset of a region in the capture.
fn offset_of(index: u32) -> usize {
    layout::HEADER_BYTES + index as usize * layout::stride(options())
}

/// Offset of a region's [`Events`], which are the last of its room, if the region's is `region`.
fn events_offset(region: usize) -> usize {
    region + layout::stride(options()) - layout::EVENTS_ROOM
}

fn take_offset(header: &Header) -> Option<usize> {
    let index = header.regions.fetch_add(1, Relaxed);
    let room = if header.room == 0 { layout::MAX_REGIONS } else { header.room as usize };
    if index as usize >= room.min(layout::MAX_REGIONS) {
        return None;
    }
    INDEX.store(index, Relaxed);
    Some(offset_of(index))
}

fn start_tables(r: &Region) {
    let h = &r.head;
    for count in [&h.tags, &h.sites, &h.codes, &h.contexts, &h.slots, &h.functions, &h.strings] {
        count.store(1, Relaxed);
    }
    // SAFETY: getpid(2) and getppid(2) cannot fail.
    unsafe {
        h.pid.store(libc::getpid() as u32, Relaxed);
        h.parent_pid.store(libc::getppid() as u32, Relaxed);
    }
    h.started.store(crate::clock::wall(), Relaxed);
    h.state.store(layout::STATE_RUNNING, Relaxed);
}

/// Resident bytes of the region itself, from the table sizes: tables only grow.
pub fn resident() -> i64 {
    let r = region();
    let h = &r.head;
    let pages = |count: u32, size: usize| ((count as usize * size + PAGE - 1) & !(PAGE - 1)) as i64;
    pages(1, size_of::<layout::RegionHead>())
        + pages(h.tags.load(Relaxed), size_of::<layout::Tag>())
        + pages(h.sites.load(Relaxed), size_of::<layout::Site>())
        + pages(h.codes.load(Relaxed), size_of::<layout::Code>())
        + pages(h.contexts.load(Relaxed), size_of::<layout::Context>())
        + pages(h.slots.load(Relaxed), size_of::<layout::Slot>())
        + pages(h.functions.load(Relaxed), size_of::<layout::Function>())
        + pages(h.strings.load(Relaxed), 1)
        + stacks::resident()
        + PAGE as i64 // the header
}

/// After a fork, in the child: continues in a region of its own at the same address. The
/// append-only tables are copied from the parent's region; every counter starts at zero but
/// what was in use, per tag, as `in_use_of` and `blocks_of` say. `path` is the capture's name.
pub fn move_to_child(
    path: *const libc::c_char,
    follow: bool,
    in_use_of: &dyn Fn(u32) -> u64,
    blocks_of: &dyn Fn(u32) -> u64,
) {
    let parent_index = INDEX.load(Relaxed);
    let fd = if follow { open(path) } else { -1 };
    let offset = if fd >= 0 { header().and_then(take_offset) } else { None };
    let old = replace(fd, offset, place(), size_of::<Region>()) as *const Region;
    let new = region();
    start_tables(new);
    if !old.is_null() {
        // SAFETY: `old` is a second mapping of the parent's region.
        copy_tables(unsafe { &*old }, new, in_use_of);
        new.head.forked.store(1, Relaxed);
        new.head.parent_region.store(parent_index + 1, Relaxed);
        unmap(old as *const u8, size_of::<Region>());
    }
    if stacks::on() {
        let at = stacks::place();
        let offset = offset.map(|o| o + layout::REGION_STRIDE);
        let old = replace(fd, offset, at as *mut u8, size_of::<Stacks>()) as *const Stacks;
        stacks::start(at, header().map_or(0, |h| h.temporary_distance));
        if !old.is_null() {
            // SAFETY: `old` is a second mapping of the parent's part.
            stacks::inherit(unsafe { &*old }, blocks_of);
            unmap(old as *const u8, size_of::<Stacks>());
        }
        if let Some(at) = events::stop() {
            // Without a region of its own the child tells nothing; the ring is its parent's.
            let own = offset.map_or(null_mut(), |_| {
                let offset = events_offset(offset_of(INDEX.load(Relaxed)));
                map_shared(fd, offset, size_of::<Events>(), at)
            });
            events::start(own, stacks::count::bytes_allocated());
        }
    }
    if fd >= 0 {
        close(fd);
    }
}

/// Maps the capture at `offset` in the place of the parent's part at `at`; returns a second view
/// of the parent's. Without an offset nobody will read this process: its counters go to memory
/// that dies with it.
fn replace(fd: i32, offset: Option<usize>, at: *mut u8, bytes: usize) -> *const u8 {
    let old = remap_alias(at, bytes);
    let done = offset.is_some_and(|offset| !map_shared(fd, offset, bytes, at).is_null());
    if !done {
        make_private(-1, 0, bytes, at);
    }
    old
}

fn unmap(p: *const u8, bytes: usize) {
    // SAFETY: unmaps a second view, which nothing refers to any more.
    unsafe { libc::syscall(libc::SYS_munmap, p, bytes) };
}

/// A second mapping of the same shared pages (mremap(2) with an old size of 0).
fn remap_alias(of: *mut u8, bytes: usize) -> *const u8 {
    // SAFETY: an old size of 0 on a shared mapping duplicates it and leaves the first in place.
    let p = unsafe { libc::syscall(libc::SYS_mremap, of, 0usize, bytes, libc::MREMAP_MAYMOVE) };
    if p == -1 {
        core::ptr::null()
    } else {
        p as usize as *const u8
    }
}

/// Copies `count` entries of a table of atomics byte by byte.
fn copy_entries<T>(from: &[T], to: &[T], count: u32) {
    let count = (count as usize).min(from.len()).min(to.len());
    // SAFETY: both tables have at least `count` entries; the target table belongs to this
    // process alone, which has one thread (it was just forked), and `T` is made of atomics, so
    // writing through a shared reference's address is allowed.
    unsafe {
        core::ptr::copy_nonoverlapping(
            from.as_ptr() as *const u8,
            to.as_ptr() as *mut u8,
            count * size_of::<T>(),
        )
    };
}

fn copy_tables(old: &Region, new: &Region, in_use_of: &dyn Fn(u32) -> u64) {
    let (o, n) = (&old.head, &new.head);
    let tables = [
        (&o.sites, &n.sites),
        (&o.codes, &n.codes),
        (&o.strings, &n.strings),
        (&o.contexts, &n.contexts),
        (&o.slots, &n.slots),
        (&o.functions, &n.functions),
        (&o.tags, &n.tags),
        (&o.python, &n.python),
        (&o.abilities, &n.abilities),
        (&o.refusal, &n.refusal),
    ];
    for (from, to) in tables {
        to.store(from.load(Relaxed), Relaxed);
    }
    copy_entries(&old.sites, &new.sites, n.sites.load(Relaxed));
    copy_entries(&old.codes, &new.codes, n.codes.load(Relaxed));
    copy_entries(&old.strings, &new.strings, n.strings.load(Relaxed));
    copy_entries(&old.functions, &new.functions, n.functions.load(Relaxed));
    for (from, to) in [
        (&o.command, &n.command),
        (&o.executable, &n.executable),
        (&o.version_text, &n.version_text),
    ] {
        to.offset.store(from.offset.load(Relaxed), Relaxed);
        to.len.store(from.len.load(Relaxed), Relaxed);
    }
    for i in 0..n.functions.load(Relaxed) as usize {
        if let Some(f) = new.functions.get(i) {
            f.calls.store(0, Relaxed);
        }
    }
    for i in 0..n.contexts.load(Relaxed) as usize {
        if let (Some(f), Some(t)) = (old.contexts.get(i), new.contexts.get(i)) {
            t.parent.store(f.parent.load(Relaxed), Relaxed);
            t.slot.store(f.slot.load(Relaxed), Relaxed);
        }
    }
    for i in 0..n.slots.load(Relaxed) as usize {
        if let (Some(f), Some(t)) = (old.slots.get(i), new.slots.get(i)) {
            t.function.store(f.function.load(Relaxed), Relaxed);
            t.line.store(f.line.load(Relaxed), Relaxed);
        }
    }
    for i in 0..n.tags.load(Relaxed) as usize {
        if let (Some(f), Some(t)) = (old.tags.get(i), new.tags.get(i)) {
            t.site.store(f.site.load(Relaxed), Relaxed);
            t.context.store(f.context.load(Relaxed), Relaxed);
            t.flags.store(f.flags.load(Relaxed), Relaxed);
            if let Some(inherited) = new.inherited.get(i) {
                inherited.store(in_use_of(i as u32), Relaxed);
            }
        }
    }
}

/// Copies bytes into the region's text; `(0, 0)` if it is full. The caller holds the lock.
pub fn store_text(bytes: &[u8]) -> (u32, u32) {
    let r = region();
    let at = r.head.strings.load(Relaxed) as usize;
    let Some(room) = r.strings.get(at..at + bytes.len()) else { return (0, 0) };
    for (cell, byte) in room.iter().zip(bytes) {
        cell.store(*byte, Relaxed);
    }
    r.head.strings.store((at + bytes.len()) as u32, Relaxed);
    (at as u32, bytes.len() as u32)
}

/// Stores text into one of the region's text fields. The caller holds the lock.
pub fn set_text(field: &layout::Text, bytes: &[u8]) {
    let (offset, len) = store_text(bytes);
    field.offset.store(offset, Relaxed);
    field.len.store(len, Relaxed);
}

/// The `--function` patterns, one a line.
pub fn patterns() -> &'static [u8] {
    let Some(h) = header() else { return &[] };
    let len = (h.patterns_len as usize).min(h.patterns.len());
    // SAFETY: the header is mapped for the life of the process and the parent wrote the
    // patterns before this process started.
    unsafe { core::slice::from_raw_parts(addr_of!(h.patterns) as *const u8, len) }
}
