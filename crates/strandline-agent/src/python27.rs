//! Python 2.7, whose API has no allocator hooks: its calls of its own functions are redirected
//! in the tables that the dynamic linker filled (GOT), as a preloaded definition would do, but
//! only when the process turns out to be a 2.7.
//!
//! It works where libpython is a shared library. In a static 2.7 there is no such table, so the
//! ability is not claimed and the columns that rest on it stay empty.
//!
//! Facts: `PyObject_Malloc` and its kin call malloc above 512 bytes and mmap for arenas of
//! 256 KiB (Objects/obmalloc.c, 2.7.7+).

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use libc::{c_char, c_int, c_void};
use strandline_capture::layout as capture;

use crate::memory::PAGE;
use crate::own;
use crate::pools::{self, SHIFT_4K};
use crate::python::{self, OBJECT};
use crate::region::region;
use crate::sites;
use crate::symbols::{self, Symbol};
use crate::tls::{tls, Flagged, IN_OBJECT_27, QUIET};

const ARENA: usize = 256 << 10;
static MALLOC: AtomicUsize = AtomicUsize::new(0);
static REALLOC: AtomicUsize = AtomicUsize::new(0);
static FREE: AtomicUsize = AtomicUsize::new(0);

/// True if a mapping of this size, made inside `PyObject_Malloc`, is an arena.
pub fn is_arena(bytes: usize) -> bool {
    bytes == ARENA
}

unsafe extern "C" fn object_malloc(n: usize) -> *mut c_void {
    if tls().flags.get() & QUIET != 0 {
        return own::alloc(n);
    }
    let p = {
        let _inside = Flagged::new(IN_OBJECT_27);
        // SAFETY: the interpreter's own PyObject_Malloc.
        unsafe {
            let f: unsafe extern "C" fn(usize) -> *mut c_void =
                core::mem::transmute(MALLOC.load(Relaxed));
            f(n)
        }
    };
    pools::allocated::<SHIFT_4K, false>(p as usize, n, sites::current_on_this_thread::<OBJECT>);
    p
}

unsafe extern "C" fn object_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if p.is_null() && tls().flags.get() & QUIET != 0 {
        return own::alloc(n);
    }
    let taken = pools::take::<SHIFT_4K, false>(p as usize);
    let fresh = {
        let _inside = Flagged::new(IN_OBJECT_27);
        // SAFETY: the interpreter's own PyObject_Realloc.
        unsafe {
            let f: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void =
                core::mem::transmute(REALLOC.load(Relaxed));
            f(p, n)
        }
    };
    if let Some(t) = taken {
        if fresh.is_null() {
            t.restore();
            return fresh;
        }
        crate::pymem::gone(t, p as usize);
    }
    pools::allocated::<SHIFT_4K, false>(fresh as usize, n, sites::current_on_this_thread::<OBJECT>);
    fresh
}

unsafe extern "C" fn object_free(p: *mut c_void) {
    if let Some(t) = pools::take::<SHIFT_4K, false>(p as usize) {
        crate::pymem::gone(t, p as usize);
    }
    let _inside = Flagged::new(IN_OBJECT_27);
    // SAFETY: the interpreter's own PyObject_Free.
    unsafe {
        let f: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(FREE.load(Relaxed));
        f(p)
    }
}

/// Redirects the object allocator if this is a 2.7 in a shared library.
pub fn start() {
    if python::layout().is_none_or(|l| l.version != (2, 7)) {
        return;
    }
    pools::set_leaky();
    MALLOC.store(symbols::OBJECT_MALLOC.address(), Relaxed);
    REALLOC.store(symbols::OBJECT_REALLOC.address(), Relaxed);
    FREE.store(symbols::OBJECT_FREE.address(), Relaxed);
    let malloc: unsafe extern "C" fn(usize) -> *mut c_void = object_malloc;
    let realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void = object_realloc;
    let free: unsafe extern "C" fn(*mut c_void) = object_free;
    let all = redirect(&[
        (&symbols::OBJECT_MALLOC, malloc as usize),
        (&symbols::OBJECT_REALLOC, realloc as usize),
        (&symbols::OBJECT_FREE, free as usize),
    ]);
    if all {
        region().head.abilities.fetch_or(capture::CAN_BLOCKS, Relaxed);
    }
}

/// Redirects the evaluation of frames to `trace::evaluate`; false if that can't be done.
pub fn hook_frames(below: &AtomicUsize) -> bool {
    below.store(symbols::EVAL_FRAME_EX.address(), Relaxed);
    let mine: unsafe extern "C" fn(usize, usize, usize) -> symbols::Object =
        crate::lines::trace::evaluate;
    redirect(&[(&symbols::EVAL_FRAME_EX, mine as usize)])
}

/// Loaded libraries when `redirect` last looked.
static LIBRARIES: AtomicU64 = AtomicU64::new(0);

/// Extension modules that were loaded since call the originals: redirects them, too.
pub fn look_again() {
    if python::layout().is_none_or(|l| l.version != (2, 7)) || MALLOC.load(Relaxed) == 0 {
        return;
    }
    let mut count = 0u64;
    // SAFETY: `count_libraries` adds to the integer that it is given.
    unsafe { libc::dl_iterate_phdr(Some(count_libraries), &mut count as *mut u64 as *mut c_void) };
    if count != LIBRARIES.swap(count, Relaxed) {
        start();
        if crate::lines::trace::installed() {
            let mine: unsafe extern "C" fn(usize, usize, usize) -> symbols::Object =
                crate::lines::trace::evaluate;
            redirect(&[(&symbols::EVAL_FRAME_EX, mine as usize)]);
        }
    }
}

unsafe extern "C" fn count_libraries(
    info: *mut libc::dl_phdr_info,
    _: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `data` is the counter; `info` is valid for the call.
    unsafe { *(data as *mut u64) = (*info).dlpi_adds };
    1
}

struct Redirect<'a> {
    wanted: &'a [(&'a Symbol, usize)],
    /// Bit i: entry i was found in some table.
    found: u32,
}

/// Points every table entry for one of the symbols to the function beside it. True if each
/// symbol was in some table.
fn redirect(wanted: &[(&Symbol, usize)]) -> bool {
    let mut r = Redirect { wanted, found: 0 };
    // SAFETY: `visit` gets `r`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), &mut r as *mut Redirect as *mut c_void) };
    r.found == (1 << wanted.len()) - 1
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

/// `Elf64_Rela`.
#[repr(C)]
struct Relocation {
    offset: usize,
    kind: u32,
    symbol: u32,
    addend: i64,
}

/// `Elf64_Sym`.
#[repr(C)]
struct ElfSymbol {
    name: u32,
    info: u32,
    value: usize,
    size: usize,
}

/// What a loaded object's dynamic section says (elf.h).
#[derive(Default)]
struct Tables {
    strings: usize,
    symbols: usize,
    /// Address and bytes of the two relocation tables.
    relocations: [(usize, usize); 2],
}

const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;
const R_64: u32 = 1;
const R_GLOB_DAT: u32 = 6;
const R_JUMP_SLOT: u32 = 7;

/// # Safety
/// `d` is the dynamic section of a loaded object.
unsafe fn tables(mut d: *const Dynamic) -> Tables {
    let mut t = Tables::default();
    // SAFETY: the section ends with an entry of tag 0.
    unsafe {
        while (*d).tag != 0 {
            let value = (*d).value;
            match (*d).tag {
                DT_STRTAB => t.strings = value,
                DT_SYMTAB => t.symbols = value,
                DT_RELA => t.relocations[0].0 = value,
                DT_RELASZ => t.relocations[0].1 = value,
                DT_JMPREL => t.relocations[1].0 = value,
                DT_PLTRELSZ => t.relocations[1].1 = value,
                _ => {}
            }
            d = d.add(1);
        }
    }
    t
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: `info` describes a loaded object, whose program headers and dynamic section are
    // mapped; `data` is the Redirect.
    unsafe {
        let info = &*info;
        let r = &mut *(data as *mut Redirect);
        let headers = core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize);
        let base = info.dlpi_addr as usize;
        let find = |kind| headers.iter().find(|h| h.p_type == kind);
        let Some(dynamic) = find(libc::PT_DYNAMIC) else { return 0 };
        let sealed = find(libc::PT_GNU_RELRO).map_or((0, 0), |h| {
            let start = base + h.p_vaddr as usize;
            (start & !(PAGE - 1), start + h.p_memsz as usize)
        });
        let t = tables((base + dynamic.p_vaddr as usize) as *const Dynamic);
        if t.strings < base.max(PAGE) || t.symbols < base.max(PAGE) {
            // The kernel's own object keeps file addresses and calls nothing.
            return 0;
        }
        for (table, bytes) in t.relocations {
            let n = bytes / core::mem::size_of::<Relocation>();
            for i in 0..n {
                let e = &*(table as *const Relocation).add(i);
                if [R_64, R_GLOB_DAT, R_JUMP_SLOT].contains(&e.kind) && e.addend == 0 {
                    let symbol = &*(t.symbols as *const ElfSymbol).add(e.symbol as usize);
                    let name = (t.strings + symbol.name as usize) as *const c_char;
                    point(r, core::ffi::CStr::from_ptr(name), base + e.offset, sealed);
                }
            }
        }
    }
    0
}

/// Rewrites the word at `cell` if it is for one of the wanted symbols.
///
/// # Safety
/// `cell` is a relocated word of a loaded object, whose pages `sealed` are read-only.
unsafe fn point(r: &mut Redirect, name: &core::ffi::CStr, cell: usize, sealed: (usize, usize)) {
    for (i, (symbol, to)) in r.wanted.iter().enumerate() {
        if symbol.name() != name {
            continue;
        }
        r.found |= 1 << i;
        let page = (cell & !(PAGE - 1)) as *mut c_void;
        let is_sealed = sealed.0 <= cell && cell < sealed.1;
        // SAFETY: the caller's promise; a sealed page is opened for one store.
        unsafe {
            if is_sealed && libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                continue;
            }
            *(cell as *mut usize) = *to;
            if is_sealed {
                libc::mprotect(page, PAGE, libc::PROT_READ);
            }
        }
    }
}
