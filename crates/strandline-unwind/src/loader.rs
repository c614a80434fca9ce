//! Which loaded object holds an address, asked without a lock: of glibc (2.35 and later), else
//! of the table of modules.

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::bare;
use crate::image::{Image, Tables};
use crate::modules;

/// `struct dl_find_object` (glibc, elf/dl-find_object.h and bits/dl_find_object.h, x86-64).
#[repr(C)]
struct Found {
    flags: u64,
    map_start: usize,
    map_end: usize,
    /// `struct link_map`, whose first member is the load bias.
    link_map: *const usize,
    eh_frame: usize,
    reserved: [u64; 7],
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut Found) -> c_int;

/// Address of `_dl_find_object`; 0: the C library has none, or nobody looked yet.
static FIND_OBJECT: AtomicUsize = AtomicUsize::new(0);
/// Nobody shall look.
const WITHOUT: usize = usize::MAX;

/// Looks for `_dl_find_object`. Takes the loader's lock.
pub(crate) fn resolve() {
    if FIND_OBJECT.load(Relaxed) == 0 {
        // SAFETY: dlsym(3) with a C string; RTLD_DEFAULT searches what is loaded.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        FIND_OBJECT.store(found as usize, Relaxed);
    }
}

/// True if an object can be found by an address without a lock.
pub(crate) fn finds_objects() -> bool {
    !matches!(FIND_OBJECT.load(Relaxed), 0 | WITHOUT)
}

/// Does without `_dl_find_object` from now on, as with a C library that lacks it.
pub(crate) fn without_find_object() {
    FIND_OBJECT.store(WITHOUT, Relaxed);
}

/// The unwind tables of the object that holds `address`; `None` if there is none, or it has no
/// tables. They can be read as long as `address` is one that this thread runs or returns to.
pub(crate) fn tables(address: usize) -> Option<Tables> {
    let tables = match FIND_OBJECT.load(Relaxed) {
        0 | WITHOUT => from_table(address)?,
        function => ask(function, address)?,
    };
    tables.exist().then_some(tables)
}

/// The object that holds `address`, code that this thread runs or returns to, and its file's name
/// as the loader has it; `None` if there is none, or the C library can't be asked without a lock.
pub(crate) fn object<'a>(address: usize) -> Option<(Image<'a>, &'a [u8])> {
    if !finds_objects() {
        return None;
    }
    let found = find(FIND_OBJECT.load(Relaxed), address)?;
    // SAFETY: the object holds code that this thread runs, so it and its link map, whose second
    // member is its name (link.h), stay.
    unsafe {
        let image = Image::at(found.map_start, *found.link_map)?;
        let name = *found.link_map.add(1) as *const core::ffi::c_char;
        let name =
            if name.is_null() { &[][..] } else { core::ffi::CStr::from_ptr(name).to_bytes() };
        Some((image, name))
    }
}

/// The unwind tables by glibc's own table.
fn ask(function: usize, address: usize) -> Option<Tables> {
    let found = find(function, address)?;
    // SAFETY: the object holds code that this thread runs, so it stays loaded.
    let image = unsafe { Image::at(found.map_start, *found.link_map) };
    match image {
        Some(image) => Some(image.tables()),
        None => from_table(address),
    }
}

/// By glibc's own table: it knows an object before its constructors run, and until it is
/// unmapped.
fn find(function: usize, address: usize) -> Option<Found> {
    let mut found = Found {
        flags: 0,
        map_start: 0,
        map_end: 0,
        link_map: core::ptr::null(),
        eh_frame: 0,
        reserved: [0; 7],
    };
    // SAFETY: the function has this type (dlfcn.h), is safe in signal handlers (glibc manual,
    // "Dynamic Linker Introspection") and fills `found` in.
    let failed = unsafe {
        let function = core::mem::transmute::<usize, FindObject>(function);
        function(address as *mut c_void, &mut found) != 0
    };
    (!failed && !found.link_map.is_null()).then_some(found)
}

/// By the table of modules, which may not know yet that the module was unloaded: its unwind
/// header is asked whether it is still there.
fn from_table(address: usize) -> Option<Tables> {
    let (_, module) = modules::find(address)?;
    bare::is_mapped(module.tables.header.start).then_some(module.tables)
}
