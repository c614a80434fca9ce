//! Redirecting calls between loaded libraries: the tables that the dynamic linker filled (GOT).
//!
//! Facts: dynamic section, relocations and symbols as in elf.h; PT_GNU_RELRO pages are read-only
//! once relocated (ld.so(8)).

use libc::{c_char, c_int, c_void};

use crate::lookups::{self, Hook};
use crate::memory::PAGE;
use crate::symbols::Symbol;

struct Redirect<'a> {
    wanted: &'a [(&'a Symbol, usize)],
    /// Bit i: entry i was found in some table.
    found: u32,
}

/// Points every table entry for one of the symbols to the function beside it. True if each
/// symbol was in some table.
pub fn redirect(wanted: &[(&Symbol, usize)]) -> bool {
    let mut r = Redirect { wanted, found: 0 };
    // SAFETY: `visit` gets `r`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), &mut r as *mut Redirect as *mut c_void) };
    r.found == (1 << wanted.len()) - 1
}

/// How many libraries were ever loaded.
pub fn libraries() -> u64 {
    let mut count = 0u64;
    // SAFETY: `count_libraries` writes to the integer that it is given.
    unsafe { libc::dl_iterate_phdr(Some(count_libraries), &mut count as *mut u64 as *mut c_void) };
    count
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

/// Most functions that can be taken the place of.
const MOST: usize = 32;

/// What is called now, and what is to be called instead.
struct Interpose<'a> {
    hooks: &'a [Hook],
    /// For each hook: libc's function, what everybody finds, which leads there, and ours. Zeros: to be
    /// left alone.
    addresses: [(usize, usize, usize); MOST],
}

/// Points every table entry for one of libc's functions to this library's function of that name.
/// This library itself and the dynamic linker are left alone; so is an entry that points elsewhere
/// (the program or another tool has put something there).
pub fn interpose(hooks: &[Hook]) {
    let mut r = Interpose { hooks, addresses: [(0, 0, 0); MOST] };
    for (to, hook) in r.addresses.iter_mut().zip(hooks) {
        // SAFETY: dlsym(3) with a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, hook.name.as_ptr()) } as usize;
        if lookups::leads_to_libcs(found, hook.name) {
            // `Hook::ours` won't do: in a library that was not preloaded it is what everybody finds.
            *to = (lookups::libcs(hook.name), found, lookups::ours(hook.name));
        }
    }
    // SAFETY: `visit_interposed` gets `r`, which outlives the call.
    unsafe {
        libc::dl_iterate_phdr(Some(visit_interposed), &mut r as *mut Interpose as *mut c_void)
    };
}

/// `Elf64_Dyn`.
#[repr(C)]
pub struct Dynamic {
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
pub struct ElfSymbol {
    name: u32,
    info: u32,
    value: usize,
    /// Bytes of what the symbol names.
    pub size: usize,
}

/// What a loaded object's dynamic section says (elf.h).
#[derive(Default)]
struct Tables {
    strings: usize,
    symbols: usize,
    /// Address and bytes of the two relocation tables.
    relocations: [(usize, usize); 2],
    /// Hash table of the symbols that it defines.
    hash: usize,
}

const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_JMPREL: i64 = 23;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
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
                DT_GNU_HASH => t.hash = value,
                _ => {}
            }
            d = d.add(1);
        }
    }
    t
}

/// A word that the dynamic linker filled with a symbol's address.
struct Cell<'a> {
    name: &'a core::ffi::CStr,
    at: usize,
    /// Address range of the object that it is in.
    object: (usize, usize),
    /// Address range that is read-only.
    sealed: (usize, usize),
}

/// Calls `each` with every such word of a loaded object.
///
/// # Safety
/// `info` is what dl_iterate_phdr(3) gives.
unsafe fn cells(info: *mut libc::dl_phdr_info, mut each: impl FnMut(&Cell)) {
    // SAFETY: `info` describes a loaded object, whose program headers and dynamic section are
    // mapped.
    unsafe {
        let info = &*info;
        let headers = core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize);
        let base = info.dlpi_addr as usize;
        let find = |kind| headers.iter().find(|h| h.p_type == kind);
        let Some(dynamic) = find(libc::PT_DYNAMIC) else { return };
        let sealed = find(libc::PT_GNU_RELRO).map_or((0, 0), |h| {
            let start = base + h.p_vaddr as usize;
            (start & !(PAGE - 1), start + h.p_memsz as usize)
        });
        let mapped = headers.iter().filter(|h| h.p_type == libc::PT_LOAD).map(|h| {
            let start = base + h.p_vaddr as usize;
            (start, start + h.p_memsz as usize)
        });
        let object = mapped.fold((usize::MAX, 0), |(a, b), (c, d)| (a.min(c), b.max(d)));
        let t = tables((base + dynamic.p_vaddr as usize) as *const Dynamic);
        if t.strings < base.max(PAGE) || t.symbols < base.max(PAGE) {
            // The kernel's own object keeps file addresses and calls nothing.
            return;
        }
        for (table, bytes) in t.relocations {
            let n = bytes / core::mem::size_of::<Relocation>();
            for i in 0..n {
                let e = &*(table as *const Relocation).add(i);
                if [R_64, R_GLOB_DAT, R_JUMP_SLOT].contains(&e.kind) && e.addend == 0 {
                    let symbol = &*(t.symbols as *const ElfSymbol).add(e.symbol as usize);
                    let name = (t.strings + symbol.name as usize) as *const c_char;
                    let name = core::ffi::CStr::from_ptr(name);
                    each(&Cell { name, at: base + e.offset, object, sealed });
                }
            }
        }
    }
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: `data` is the Redirect.
    unsafe {
        let r = &mut *(data as *mut Redirect);
        cells(info, |cell| {
            for (i, (symbol, to)) in r.wanted.iter().enumerate() {
                if symbol.name() == cell.name {
                    r.found |= 1 << i;
                    store(cell, *to);
                }
            }
        });
    }
    0
}

unsafe extern "C" fn visit_interposed(
    info: *mut libc::dl_phdr_info,
    _: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `data` is the Interpose; `info` describes a loaded object.
    unsafe {
        let r = &*(data as *const Interpose);
        let name = (*info).dlpi_name;
        let is_linker = !name.is_null()
            && core::ffi::CStr::from_ptr(name).to_bytes().windows(4).any(|w| w == b"/ld-");
        if is_linker {
            return 0;
        }
        let us = visit_interposed as *const () as usize;
        cells(info, |cell| {
            if cell.object.0 <= us && us < cell.object.1 {
                return;
            }
            let Some(i) = r.hooks.iter().position(|h| h.name == cell.name) else { return };
            let Some((real, found, ours)) = r.addresses.get(i).copied() else { return };
            let now = *(cell.at as *const usize);
            // Not bound yet: it points into its own object.
            let unbound = cell.object.0 <= now && now < cell.object.1;
            if ours != 0 && now != 0 && (now == real || now == found || unbound) {
                store(cell, ours);
            }
        });
    }
    0
}

/// Rewrites a word.
///
/// # Safety
/// It is a relocated word of a loaded object.
unsafe fn store(cell: &Cell, to: usize) {
    let page = (cell.at & !(PAGE - 1)) as *mut c_void;
    let is_sealed = cell.sealed.0 <= cell.at && cell.at < cell.sealed.1;
    // SAFETY: the caller's promise; a sealed page is opened for one store.
    unsafe {
        if is_sealed && libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return;
        }
        *(cell.at as *mut usize) = to;
        if is_sealed {
            libc::mprotect(page, PAGE, libc::PROT_READ);
        }
    }
}

/// Address of the symbol that the object at `base` defines under this name, in whatever version; 0
/// if it has none.
///
/// # Safety
/// `dynamic` is the dynamic section of a loaded object, relocated by the dynamic linker.
pub unsafe fn symbol_in(base: usize, dynamic: *const Dynamic, name: &core::ffi::CStr) -> usize {
    // SAFETY: the caller's promise. DT_GNU_HASH: number of buckets, index of the first symbol,
    // words of the filter, its shift; the filter; the buckets; a word a symbol, the hash without
    // its lowest bit, which is 1 in the last of a bucket.
    unsafe {
        let t = tables(dynamic);
        if t.hash < base || t.symbols < base || t.strings < base {
            return 0;
        }
        let head = t.hash as *const u32;
        let (buckets, first, filter) = (*head, *head.add(1), *head.add(2) as usize);
        let bucket_at = head.add(4 + 2 * filter);
        let chain_at = bucket_at.add(buckets as usize);
        let step = |h: u32, &byte: &u8| h.wrapping_mul(33).wrapping_add(byte.into());
        let hash = name.to_bytes().iter().fold(5381u32, step);
        let mut i = if buckets == 0 { 0 } else { *bucket_at.add((hash % buckets) as usize) };
        while i >= first.max(1) {
            let word = *chain_at.add((i - first) as usize);
            let symbol = &*(t.symbols as *const ElfSymbol).add(i as usize);
            let its_name = (t.strings + symbol.name as usize) as *const c_char;
            let same = word | 1 == hash | 1 && core::ffi::CStr::from_ptr(its_name) == name;
            if same && symbol.info >> 16 != 0 {
                return base + symbol.value;
            }
            if word & 1 != 0 {
                break;
            }
            i += 1;
        }
    }
    0
}
