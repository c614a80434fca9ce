//! The module `strandline` of a profiled program: `strandline.census()`, `strandline.mark()`.
//!
//! It is an entry in the table of built-in modules (`PyImport_AppendInittab`), made before the
//! interpreter starts: nothing of it exists until it is imported.

use core::ffi::CStr;

use libc::{c_char, c_int, c_void};
use strandline_capture::layout as capture;

use crate::lines::monitoring;
use crate::symbols::{self, call, Object};
use crate::tls::Quiet;
use crate::{census, front, python, region};

const NAME: &CStr = c"strandline";
const TEXT: &str = concat!(include_str!("module.py"), "\0");

/// `PyModuleDef_Slot` (Include/moduleobject.h).
#[repr(C)]
struct Slot {
    id: c_int,
    value: *mut c_void,
}

/// `Py_mod_exec`.
const EXEC: c_int = 2;

/// `PyModuleDef` (Include/moduleobject.h): the same from 3.5 on, in builds with a GIL.
#[repr(C)]
struct Definition {
    /// `PyModuleDef_Base`: reference count, type, `m_init`, `m_index`, `m_copy`.
    base: [usize; 5],
    name: *const c_char,
    doc: *const c_char,
    size: isize,
    methods: *mut c_void,
    slots: *mut Slot,
    ends: [usize; 3],
}

struct Static<T>(core::cell::UnsafeCell<T>);
// SAFETY: only the interpreter writes to them, under its GIL.
unsafe impl<T> Sync for Static<T> {}

static SLOTS: Static<[Slot; 2]> = Static(core::cell::UnsafeCell::new([
    Slot { id: EXEC, value: core::ptr::null_mut() },
    Slot { id: 0, value: core::ptr::null_mut() },
]));
static DEFINITION: Static<Definition> = Static(core::cell::UnsafeCell::new(Definition {
    base: [1, 0, 0, 0, 0],
    name: NAME.as_ptr(),
    doc: core::ptr::null(),
    size: 0,
    methods: core::ptr::null_mut(),
    slots: core::ptr::null_mut(),
    ends: [0; 3],
}));

/// Makes the module importable. Called before the interpreter starts.
pub fn offer() {
    if !symbols::APPEND_INITTAB.found() || !symbols::MODULE_DICT.found() {
        return;
    }
    let is_27 = python::layout().is_some_and(|l| l.version == (2, 7));
    let init = if is_27 {
        let f: unsafe extern "C" fn() = init_27;
        f as usize
    } else if symbols::MODULE_DEF_INIT.found() {
        let f: unsafe extern "C" fn() -> Object = init;
        f as usize
    } else {
        return;
    };
    // SAFETY: documented API, to be called before Py_Initialize; the name is static.
    unsafe {
        call!(
            symbols::APPEND_INITTAB,
            fn(NAME.as_ptr() => *const c_char, init => usize) -> c_int
        );
    }
}

/// `PyInit_strandline`
unsafe extern "C" fn init() -> Object {
    let f: unsafe extern "C" fn(Object) -> c_int = execute;
    // SAFETY: called under the GIL; both statics live as long as the process.
    unsafe {
        (*SLOTS.0.get())[0].value = f as usize as *mut c_void;
        (*DEFINITION.0.get()).slots = SLOTS.0.get() as *mut Slot;
        call!(
            symbols::MODULE_DEF_INIT,
            fn(DEFINITION.0.get() => *mut Definition) -> Object
        )
    }
}

/// `initstrandline`
unsafe extern "C" fn init_27() {
    // SAFETY: called by the import machinery, under the GIL.
    unsafe {
        let module = call!(symbols::ADD_MODULE, fn(NAME.as_ptr() => *const c_char) -> Object);
        if !module.is_null() {
            execute(module);
        }
    }
}

/// Fills the module in. An exception that it leaves set is the importer's to see.
unsafe extern "C" fn execute(module: Object) -> c_int {
    // SAFETY: called by the import machinery with a live module, under the GIL.
    unsafe {
        let names = call!(symbols::MODULE_DICT, fn(module => Object) -> Object);
        let owner = region::header().map_or(0, |h| h.owner_pid);
        let functions: [(&CStr, front::Native); 3] = [
            (c"native_ask", native_ask),
            (c"native_release", native_release),
            (c"mark", crate::bare::native_mark),
        ];
        let filled = {
            let _quiet = Quiet::new();
            front::set(names, c"OWNER", front::new_long(owner as i64)).is_some()
                && functions.iter().all(|(name, f)| {
                    let object = monitoring::method_object(name, *f as usize, monitoring::VARARGS);
                    front::set(names, name, object).is_some()
                })
        };
        let builtins = call!(symbols::GET_BUILTINS, fn() -> Object);
        let done = filled
            && front::set(names, c"__builtins__", builtins).is_some()
            && front::run(TEXT, names).is_some();
        if done {
            0
        } else {
            -1
        }
    }
}

/// (): asks for a census and waits for it; -2 if another thread or process is asking
unsafe extern "C" fn native_ask(_: Object, _: Object) -> Object {
    let number = census::ask(capture::CENSUS_CALL, 0);
    // SAFETY: the GIL is held.
    unsafe { front::new_long(number) }
}

/// (): the answer was read
unsafe extern "C" fn native_release(_: Object, _: Object) -> Object {
    census::release();
    front::none()
}
