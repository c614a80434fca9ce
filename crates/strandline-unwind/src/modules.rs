//! The table of loaded modules: written by [`refresh`], read by anybody without a lock.
//!
//! Entries are only ever added; that of a module that was unloaded stays, so that addresses
//! recorded before can still be told. Names are copied, since the loader frees its own.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use libc::dl_phdr_info;

use crate::cache;
use crate::image::{Image, Range, Tables, BUILD_ID};
use crate::once::Once;

/// Modules that the table has room for: a large Python program loads a thousand.
const MODULES: usize = 4096;
/// Bytes for all names.
const NAMES: usize = 512 << 10;

/// A module that is, or was, loaded.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// First to last address of its segments.
    pub extent: Range,
    /// What was added to the addresses of its file: subtract it from an address in memory to
    /// get the address in the library's own terms.
    pub bias: usize,
    /// Name of its file as the loader has it; the program's own is resolved. Bytes of a path,
    /// relative to the directory at the time if it isn't absolute.
    pub path: &'static [u8],
    /// Hash of the path, to find it again.
    path_hash: u64,
    pub(crate) tables: Tables,
    build_id: [u8; BUILD_ID],
    build_id_length: usize,
}

impl Module {
    /// Its build id (`NT_GNU_BUILD_ID`); empty: it has none.
    pub fn build_id(&self) -> &[u8] {
        self.build_id.get(..self.build_id_length).unwrap_or(&[])
    }
}

struct Entry {
    module: Once<Module>,
    loaded: AtomicBool,
    /// The pass of [`refresh`] that saw it last.
    seen: AtomicU32,
}

static ENTRIES: [Entry; MODULES] = [const {
    Entry { module: Once::new(), loaded: AtomicBool::new(false), seen: AtomicU32::new(0) }
}; MODULES];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicUsize = AtomicUsize::new(0);
static NAMES_USED: AtomicUsize = AtomicUsize::new(0);
static NAME_BYTES: crate::once::Bytes<NAMES> = crate::once::Bytes::new();

/// Number of entries, unloaded modules' included.
pub fn count() -> usize {
    COUNT.load(Acquire).min(MODULES)
}

/// Number of modules that found no room in the table: their frames are unwound all the same if
/// the C library is glibc 2.35 or later, but nothing tells what they are.
pub fn lost() -> usize {
    LOST.load(Relaxed)
}

/// The module with an index below [`count`].
pub fn get(index: usize) -> Option<&'static Module> {
    ENTRIES.get(index)?.module.get()
}

/// True if the module with that index is loaded, as far as [`refresh`] saw.
pub fn is_loaded(index: usize) -> bool {
    ENTRIES.get(index).is_some_and(|e| e.loaded.load(Acquire))
}

/// The loaded module that holds `address`, and its index. Takes some hundred nanoseconds; no
/// lock.
pub fn find(address: usize) -> Option<(usize, &'static Module)> {
    let entries = ENTRIES.get(..count())?;
    entries.iter().enumerate().find_map(|(index, entry)| {
        let module = entry.module.get()?;
        let here = module.extent.contains(address) && entry.loaded.load(Acquire);
        here.then_some((index, module))
    })
}

/// The module that holds `address`, code that this thread runs or returns to, and its index. The
/// C library is asked without a lock (glibc 2.35 and later), and a module that it names and the
/// table doesn't know is added; else this is [`find`]. Takes about a microsecond.
pub fn at(address: usize) -> Option<(usize, &'static Module)> {
    let Some((image, name)) = crate::loader::object(address) else { return find(address) };
    let mut own = [0u8; libc::PATH_MAX as usize];
    let name = if name.is_empty() { program(&mut own) } else { name };
    let wanted = Module::of(&image, name);
    let right = |found: &(usize, &Module)| found.1.is(&wanted);
    if let Some(known) = find(address).filter(right) {
        return Some(known);
    }
    if BUSY.swap(true, Acquire) {
        return None;
    }
    // Another object lies where these were: they are gone.
    while let Some((index, _)) = find(address).filter(|found| !right(found)) {
        if let Some(entry) = ENTRIES.get(index) {
            entry.loaded.store(false, Release);
        }
        cache::next_epoch();
    }
    add(wanted, name, PASS.load(Relaxed));
    BUSY.store(false, Release);
    find(address).filter(right)
}

/// True if [`at`] finds modules that were loaded since the last [`refresh`].
pub fn finds_later_ones() -> bool {
    crate::loader::finds_objects()
}

/// Resident bytes of the table.
pub(crate) fn resident() -> usize {
    let page = crate::bare::PAGE;
    (count() * size_of::<Entry>()).next_multiple_of(page)
        + NAMES_USED.load(Relaxed).next_multiple_of(page)
}

/// Somebody is in [`refresh`], or adds a module.
static BUSY: AtomicBool = AtomicBool::new(false);
/// Somebody wanted to get in since the one who is there began.
static AGAIN: AtomicBool = AtomicBool::new(false);
/// Passes, and the loader's counters of loaded and unloaded objects at the last one.
static PASS: AtomicU32 = AtomicU32::new(0);
static ADDS: AtomicU64 = AtomicU64::new(0);
static SUBS: AtomicU64 = AtomicU64::new(0);

/// Brings the table up to date: to be called at the start, after `dlopen` and after `dlclose`.
/// Takes the loader's lock (`dl_iterate_phdr`), so never on a hot path. If another thread is at
/// it, that one does it once more and this one returns at once: waiting could be a deadlock, for
/// this thread may hold the loader's lock.
pub fn refresh() {
    crate::loader::resolve();
    AGAIN.store(true, Release);
    while AGAIN.load(Acquire) && !BUSY.swap(true, Acquire) {
        AGAIN.store(false, Release);
        pass();
        BUSY.store(false, Release);
    }
}

/// To be called in the child after `fork`: a thread that was in [`refresh`] isn't there any more,
/// and nobody would get in.
pub fn after_fork() {
    BUSY.store(false, Release);
}

/// One walk over all that is loaded.
struct Pass {
    number: u32,
    changed: bool,
    first: bool,
    unloaded: bool,
}

fn pass() {
    let number = PASS.load(Relaxed).wrapping_add(1);
    let mut pass = Pass { number, changed: true, first: true, unloaded: false };
    // SAFETY: dl_iterate_phdr(3) calls `visit` with the pointer it is given here.
    unsafe { libc::dl_iterate_phdr(Some(visit), &raw mut pass as *mut c_void) };
    if !pass.changed {
        return;
    }
    PASS.store(number, Relaxed);
    for entry in ENTRIES.iter().take(count()) {
        if entry.seen.load(Relaxed) != number && entry.loaded.swap(false, Release) {
            pass.unloaded = true;
        }
    }
    if pass.unloaded {
        cache::next_epoch();
    }
}

unsafe extern "C" fn visit(info: *mut dl_phdr_info, size: usize, pass: *mut c_void) -> c_int {
    // SAFETY: the loader gives a structure that lives during this call, and the pointer that
    // `pass` gave it.
    let (info, pass) = unsafe { (&*info, &mut *pass.cast::<Pass>()) };
    let counted = size >= core::mem::offset_of!(dl_phdr_info, dlpi_subs) + size_of::<u64>();
    if pass.first && counted {
        let adds = ADDS.swap(info.dlpi_adds, Relaxed);
        let subs = SUBS.swap(info.dlpi_subs, Relaxed);
        pass.changed = adds != info.dlpi_adds || subs != info.dlpi_subs;
        pass.unloaded = subs != info.dlpi_subs;
        if !pass.changed {
            return 1;
        }
    }
    pass.first = false;
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the loader's own copy of the program headers, kept while the object is loaded.
    let headers =
        unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let image = Image { bias: info.dlpi_addr as usize, headers };
    let name = if info.dlpi_name.is_null() {
        &[]
    } else {
        // SAFETY: a C string of the loader's.
        unsafe { core::ffi::CStr::from_ptr(info.dlpi_name) }.to_bytes()
    };
    note(&image, name, pass.number);
    0
}

/// Puts an object into the table, or finds it there.
fn note(image: &Image<'_>, name: &[u8], pass: u32) {
    let mut own = [0u8; libc::PATH_MAX as usize];
    let name = if name.is_empty() { program(&mut own) } else { name };
    add(Module::of(image, name), name, pass);
}

/// Puts a module into the table, or finds it there. Only one thread at a time may call this.
fn add(mut module: Module, name: &[u8], pass: u32) {
    let old = ENTRIES.iter().take(count()).find(|e| e.module.get().is_some_and(|m| m.is(&module)));
    if let Some(entry) = old {
        entry.seen.store(pass, Relaxed);
        entry.loaded.store(true, Release);
        return;
    }
    let index = count();
    let (Some(entry), Some(path)) = (ENTRIES.get(index), keep(name)) else {
        LOST.fetch_add(1, Relaxed);
        return;
    };
    module.path = path;
    entry.module.set(module);
    entry.seen.store(pass, Relaxed);
    entry.loaded.store(true, Release);
    COUNT.store(index + 1, Release);
}

impl Module {
    /// What `image` says, without the text of its path.
    fn of(image: &Image<'_>, name: &[u8]) -> Module {
        let mut build_id = [0; BUILD_ID];
        let build_id_length = image.build_id(&mut build_id);
        Module {
            extent: image.extent(),
            bias: image.bias,
            path: &[],
            path_hash: hash(name),
            tables: image.tables(),
            build_id,
            build_id_length,
        }
    }

    /// True if both are the same file, at the same place.
    fn is(&self, other: &Module) -> bool {
        self.extent == other.extent
            && self.bias == other.bias
            && self.build_id == other.build_id
            && self.path_hash == other.path_hash
            && self.tables == other.tables
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// The program's own path, for which the loader has no name.
fn program(space: &mut [u8]) -> &[u8] {
    let path = c"/proc/self/exe".as_ptr() as usize;
    let (at, length) = (space.as_mut_ptr() as usize, space.len());
    // SAFETY: readlink(2) of a C string into `space`, no more than it holds.
    let length = unsafe { crate::bare::call(libc::SYS_readlink, path, at, length) };
    usize::try_from(length).ok().and_then(|l| space.get(..l)).unwrap_or(&[])
}

/// A copy of `name` that stays.
fn keep(name: &[u8]) -> Option<&'static [u8]> {
    let start = NAMES_USED.load(Relaxed);
    let kept = NAME_BYTES.write(start, name)?;
    NAMES_USED.store(start + name.len(), Relaxed);
    Some(kept)
}
