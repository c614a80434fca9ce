//! The modules of a profiled program: `_strandline`, which holds what the agent can be asked for, and
//! `strandline`, which is an installed package of that name, or else the same functions.
//!
//! They are entries in the table of built-in modules (`PyImport_AppendInittab`), made before the
//! interpreter starts: nothing of them exists until one is imported. Where the agent came later
//! ([`crate::attach`]) the package has `_strandline` filled.

use core::ffi::CStr;

use libc::{c_char, c_int, c_void};
use strandline_capture::layout as capture;

use crate::lines::monitoring;
use crate::symbols::{self, call, Object};
use crate::tls::Quiet;
use crate::{census, front, python, region, remedy, rss};

const NAME: &CStr = c"strandline";
const NATIVE_NAME: &CStr = c"_strandline";
const TEXT: &str = concat!(include_str!("module.py"), "\0");
const NATIVE_TEXT: &str = concat!(include_str!("module_native.py"), "\0");

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

/// What the interpreter is told of a module.
struct Told {
    slots: Static<[Slot; 2]>,
    definition: Static<Definition>,
}

impl Told {
    const fn new(name: &'static CStr) -> Self {
        Told {
            slots: Static(core::cell::UnsafeCell::new([
                Slot { id: EXEC, value: core::ptr::null_mut() },
                Slot { id: 0, value: core::ptr::null_mut() },
            ])),
            definition: Static(core::cell::UnsafeCell::new(Definition {
                base: [1, 0, 0, 0, 0],
                name: name.as_ptr(),
                doc: core::ptr::null(),
                size: 0,
                methods: core::ptr::null_mut(),
                slots: core::ptr::null_mut(),
                ends: [0; 3],
            })),
        }
    }

    /// `PyModuleDef_Init` of it.
    ///
    /// # Safety
    /// The GIL is held.
    unsafe fn init(&'static self, execute: unsafe extern "C" fn(Object) -> c_int) -> Object {
        // SAFETY: called under the GIL; both statics live as long as the process.
        unsafe {
            (*self.slots.0.get())[0].value = execute as usize as *mut c_void;
            (*self.definition.0.get()).slots = self.slots.0.get() as *mut Slot;
            call!(
                symbols::MODULE_DEF_INIT,
                fn(self.definition.0.get() => *mut Definition) -> Object
            )
        }
    }
}

static TOLD: Told = Told::new(NAME);
static NATIVE_TOLD: Told = Told::new(NATIVE_NAME);

/// Makes the modules importable. Called before the interpreter starts.
pub fn offer() {
    if !symbols::APPEND_INITTAB.found() || !symbols::MODULE_DICT.found() {
        return;
    }
    let is_27 = python::layout().is_some_and(|l| l.version == (2, 7));
    let inits = if is_27 {
        let one: unsafe extern "C" fn() = init_27;
        let two: unsafe extern "C" fn() = init_native_27;
        [(NAME, one as usize), (NATIVE_NAME, two as usize)]
    } else if symbols::MODULE_DEF_INIT.found() {
        let one: unsafe extern "C" fn() -> Object = init;
        let two: unsafe extern "C" fn() -> Object = init_native;
        [(NAME, one as usize), (NATIVE_NAME, two as usize)]
    } else {
        return;
    };
    for (name, init) in inits {
        // SAFETY: documented API, to be called before Py_Initialize; the name is static.
        unsafe {
            call!(
                symbols::APPEND_INITTAB,
                fn(name.as_ptr() => *const c_char, init => usize) -> c_int
            );
        }
    }
}

/// `PyInit_strandline`
unsafe extern "C" fn init() -> Object {
    // SAFETY: called by the import machinery, under the GIL.
    unsafe { TOLD.init(execute_front) }
}

/// `PyInit__strandline`
unsafe extern "C" fn init_native() -> Object {
    // SAFETY: as above.
    unsafe { NATIVE_TOLD.init(execute) }
}

/// `initstrandline`
unsafe extern "C" fn init_27() {
    // SAFETY: called by the import machinery, under the GIL.
    unsafe {
        let module = call!(symbols::ADD_MODULE, fn(NAME.as_ptr() => *const c_char) -> Object);
        if !module.is_null() {
            execute_front(module);
        }
    }
}

/// `init_strandline`
unsafe extern "C" fn init_native_27() {
    // SAFETY: as above.
    unsafe {
        let module =
            call!(symbols::ADD_MODULE, fn(NATIVE_NAME.as_ptr() => *const c_char) -> Object);
        if !module.is_null() {
            execute(module);
        }
    }
}

/// Fills `strandline` in. An exception that it leaves set is the importer's to see.
unsafe extern "C" fn execute_front(module: Object) -> c_int {
    // SAFETY: called by the import machinery with a live module, under the GIL.
    unsafe {
        let names = call!(symbols::MODULE_DICT, fn(module => Object) -> Object);
        run(names, TEXT)
    }
}

/// Runs the text of a module in its namespace.
unsafe fn run(names: Object, text: &'static str) -> c_int {
    // SAFETY: the caller's promise: a live dict, the GIL is held.
    unsafe {
        let builtins = call!(symbols::GET_BUILTINS, fn() -> Object);
        let done = front::set(names, c"__builtins__", builtins).is_some()
            && front::run(text, names).is_some();
        if done {
            0
        } else {
            -1
        }
    }
}

/// Fills `_strandline` in. An exception that it leaves set is the importer's to see.
///
/// # Safety
/// The GIL is held; `module` is a live module.
pub unsafe extern "C" fn execute(module: Object) -> c_int {
    // SAFETY: called by the import machinery with a live module, under the GIL.
    unsafe {
        let names = call!(symbols::MODULE_DICT, fn(module => Object) -> Object);
        let owner = region::header().map_or(0, |h| h.owner_pid);
        let functions: [(&CStr, front::Native); 8] = [
            (c"native_ask", native_ask),
            (c"native_release", native_release),
            (c"native_promising", native_promising),
            (c"native_remedy", native_remedy),
            (c"native_rss", native_rss),
            (c"native_usage", crate::usage::native_usage),
            (c"native_write", native_write),
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
        if filled {
            run(names, NATIVE_TEXT)
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

/// () -> a bit for each remedy that may give something back
unsafe extern "C" fn native_promising(_: Object, _: Object) -> Object {
    let bits = remedy::promising();
    // SAFETY: the GIL is held.
    unsafe { front::new_long(i64::from(bits)) }
}

/// (remedy) -> resident bytes after it
unsafe extern "C" fn native_remedy(_: Object, args: Object) -> Object {
    // SAFETY: only the module calls this, with one int, from Python code that may be interrupted
    // by any other.
    unsafe {
        remedy::apply(front::int_item(args, 0) as u32);
        front::new_long(remedy::exact_rss())
    }
}

/// (exactly) -> resident bytes: counted, or as the kernel has them at hand
unsafe extern "C" fn native_rss(_: Object, args: Object) -> Object {
    // SAFETY: only the module calls this, with one int; the GIL is held.
    unsafe {
        let exactly = front::int_item(args, 0) != 0;
        let at_hand = if exactly { None } else { rss::kernel_rss() };
        front::new_long(at_hand.unwrap_or_else(remedy::exact_rss))
    }
}

/// (descriptor) -> 1 if this process's part of the capture is in the file now
unsafe extern "C" fn native_write(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with an int.
    let fd = unsafe { front::int_item(args, 0) } as c_int;
    rss::write_ledger(&region::region().head.latest);
    let done = region::write_to(fd);
    // SAFETY: the GIL is held.
    unsafe { front::new_long(done as i64) }
}
