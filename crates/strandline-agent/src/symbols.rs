//! Symbols of the interpreter and of libc, looked up at run time: nothing is linked.

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::{c_char, c_void};

/// A symbol of the interpreter; address 0 until `resolve`, and after it if there is none.
pub struct Symbol {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Symbol {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Symbol { name, address: AtomicUsize::new(0) }
    }

    /// Its address, 0 if the process doesn't have it.
    #[inline(always)]
    pub fn address(&self) -> usize {
        self.address.load(Relaxed)
    }

    /// Its name.
    pub fn name(&self) -> &'static CStr {
        self.name
    }

    /// True if the process has it.
    pub fn found(&self) -> bool {
        self.address() != 0
    }

    /// Looks it up.
    pub(crate) fn resolve(&self) {
        // SAFETY: dlsym(3) with a C string; RTLD_DEFAULT searches what is loaded.
        let p = unsafe { libc::dlsym(libc::RTLD_DEFAULT, self.name.as_ptr()) };
        self.address.store(p as usize, Relaxed);
    }
}

/// Symbols, and a function that looks them up.
macro_rules! symbols {
    ($all:ident $($(#[$doc:meta])* $id:ident $name:literal)*) => {
        $($(#[$doc])* pub static $id: $crate::symbols::Symbol =
            $crate::symbols::Symbol::new($name);)*
        /// Looks every symbol up.
        pub fn $all() {
            $($id.resolve();)*
        }
    };
}
pub(crate) use symbols;

symbols! { resolve
    /// `const char *Py_GetVersion(void)`
    GET_VERSION c"Py_GetVersion"
    /// Exported by PyPy's library only.
    PYPY c"pypy_main_startup"
    /// The runtime structure, 3.7+.
    RUNTIME c"_PyRuntime"
    /// `PyThreadState *PyThreadState_GetUnchecked(void)`, 3.13+
    THREAD_STATE_GET c"PyThreadState_GetUnchecked"
    /// The same under its private name, 3.6 to 3.12
    THREAD_STATE_GET_PRIVATE c"_PyThreadState_UncheckedGet"
    /// `PyThreadState *_PyThreadState_Current`, 2.7
    THREAD_STATE_CURRENT c"_PyThreadState_Current"
    /// `PyObject *PyEval_GetGlobals(void)`, borrowed
    GET_GLOBALS c"PyEval_GetGlobals"
    /// `PyTypeObject PyCode_Type`
    CODE_TYPE c"PyCode_Type"
    /// `PyTypeObject PyUnicode_Type`, 3.x
    UNICODE_TYPE c"PyUnicode_Type"
    /// `PyTypeObject PyString_Type`, 2.7
    BYTES_TYPE c"PyString_Type"
    /// `PyTypeObject PyMethodDescr_Type`
    METHOD_DESCR_TYPE c"PyMethodDescr_Type"
    /// `void PyMem_GetAllocator(domain, PyMemAllocatorEx *)`, 3.4+
    MEM_GET_ALLOCATOR c"PyMem_GetAllocator"
    /// `void PyMem_SetAllocator(domain, PyMemAllocatorEx *)`, 3.4+
    MEM_SET_ALLOCATOR c"PyMem_SetAllocator"
    /// `void PyObject_GetArenaAllocator(PyObjectArenaAllocator *)`, 3.4+
    GET_ARENA_ALLOCATOR c"PyObject_GetArenaAllocator"
    /// `void PyObject_SetArenaAllocator(PyObjectArenaAllocator *)`, 3.4+
    SET_ARENA_ALLOCATOR c"PyObject_SetArenaAllocator"
    /// `int Py_AddPendingCall(int (*)(void *), void *)`
    ADD_PENDING_CALL c"Py_AddPendingCall"
    /// `PyObject *Py_CompileStringFlags(const char *, const char *, int, void *)`, 2.7
    COMPILE_27 c"Py_CompileStringFlags"
    /// `PyObject *Py_CompileStringExFlags(const char *, const char *, int, void *, int)`, 3.4+
    COMPILE c"Py_CompileStringExFlags"
    /// `PyObject *PyEval_EvalCode(PyObject *, PyObject *, PyObject *)`
    EVAL_CODE c"PyEval_EvalCode"
    /// `int Py_FinalizeEx(void)`, 3.6+
    FINALIZE c"Py_FinalizeEx"
    /// `void Py_Exit(int)`
    PY_EXIT c"Py_Exit"
    /// `PyObject *PyObject_Call(PyObject *, PyObject *, PyObject *)`
    CALL c"PyObject_Call"
    /// `PyObject *PyImport_ImportModule(const char *)`
    IMPORT c"PyImport_ImportModule"
    /// `PyObject *PyObject_GetAttrString(PyObject *, const char *)`
    GET_ATTR c"PyObject_GetAttrString"
    /// `PyObject *PyObject_GenericGetAttr(PyObject *, PyObject *)`
    GENERIC_GET_ATTR c"PyObject_GenericGetAttr"
    /// `PyObject *PyErr_Occurred(void)`, borrowed
    ERR_OCCURRED c"PyErr_Occurred"
    /// `int PySys_SetObject(const char *, PyObject *)`
    SYS_SET c"PySys_SetObject"
    /// `PyObject *PyImport_GetModuleDict(void)`, borrowed
    MODULES c"PyImport_GetModuleDict"
    /// `PyObject *PyUnicode_FromStringAndSize(const char *, Py_ssize_t)`, 3.x: UTF-8, no codec
    UNICODE_NEW c"PyUnicode_FromStringAndSize"
    /// `PyObject *PyString_FromStringAndSize(const char *, Py_ssize_t)`, 2.7
    STRING_NEW c"PyString_FromStringAndSize"
    /// `PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t)`, 3.x
    BYTES_NEW c"PyBytes_FromStringAndSize"
    /// `PyObject *PyDict_New(void)`
    DICT_NEW c"PyDict_New"
    /// `int PyDict_SetItemString(PyObject *, const char *, PyObject *)`
    DICT_SET c"PyDict_SetItemString"
    /// `PyObject *PyDict_GetItemString(PyObject *, const char *)`, borrowed
    DICT_GET c"PyDict_GetItemString"
    /// `PyObject *PyEval_GetBuiltins(void)`, borrowed
    GET_BUILTINS c"PyEval_GetBuiltins"
    /// `PyObject *PyCFunction_NewEx(PyMethodDef *, PyObject *, PyObject *)`
    CFUNCTION_NEW c"PyCFunction_NewEx"
    /// 3.9+: `PyCMethod_New`, which `PyCFunction_NewEx` is an alias of
    CMETHOD_NEW c"PyCMethod_New"
    /// `void PyErr_Clear(void)`
    ERR_CLEAR c"PyErr_Clear"
    /// `void PyErr_Fetch(PyObject **, PyObject **, PyObject **)`
    ERR_FETCH c"PyErr_Fetch"
    /// `void PyErr_Restore(PyObject *, PyObject *, PyObject *)`
    ERR_RESTORE c"PyErr_Restore"
    /// `void Py_DecRef(PyObject *)`
    DEC_REF c"Py_DecRef"
    /// `void Py_IncRef(PyObject *)`
    INC_REF c"Py_IncRef"
    /// `PyObject _Py_NoneStruct`
    NONE c"_Py_NoneStruct"
    /// `long PyLong_AsLong(PyObject *)`
    AS_LONG c"PyLong_AsLong"
    /// `PyObject *PyLong_FromLong(long)`
    FROM_LONG c"PyLong_FromLong"
    /// `void PyEval_SetTrace(Py_tracefunc, PyObject *)`
    SET_TRACE c"PyEval_SetTrace"
    /// `void _PyInterpreterState_SetEvalFrameFunc(interp, func)`, 3.9+
    SET_EVAL_FRAME c"_PyInterpreterState_SetEvalFrameFunc"
    /// `_PyFrameEvalFunction _PyInterpreterState_GetEvalFrameFunc(interp)`, 3.9+
    GET_EVAL_FRAME c"_PyInterpreterState_GetEvalFrameFunc"
    /// The evaluator, 3.6+
    EVAL_FRAME_DEFAULT c"_PyEval_EvalFrameDefault"
    /// `PyObject *PyEval_EvalFrameEx(PyFrameObject *, int)`, 2.7
    EVAL_FRAME_EX c"PyEval_EvalFrameEx"
    /// `PyObject *PyObject_Malloc(size_t)`
    OBJECT_MALLOC c"PyObject_Malloc"
    /// `PyObject *PyObject_Realloc(void *, size_t)`
    OBJECT_REALLOC c"PyObject_Realloc"
    /// `void PyObject_Free(void *)`
    OBJECT_FREE c"PyObject_Free"
    /// `int PyImport_AppendInittab(const char *, PyObject *(*)(void))`
    APPEND_INITTAB c"PyImport_AppendInittab"
    /// `PyObject *PyModuleDef_Init(PyModuleDef *)`, 3.5+, borrowed
    MODULE_DEF_INIT c"PyModuleDef_Init"
    /// `PyObject *PyImport_AddModule(const char *)`, borrowed
    ADD_MODULE c"PyImport_AddModule"
    /// `PyObject *PyModule_GetDict(PyObject *)`, borrowed
    MODULE_DICT c"PyModule_GetDict"
    /// `int PyGILState_Ensure(void)` (an enum)
    GIL_ENSURE c"PyGILState_Ensure"
    /// `void PyGILState_Release(int)`
    GIL_RELEASE c"PyGILState_Release"
    /// `PyThreadState *PyGILState_GetThisThreadState(void)`
    GIL_THIS_THREAD c"PyGILState_GetThisThreadState"
    /// `PyObject *_PyEval_EvalFrameDefault(...)`, the interpreter's loop, 3.6+
    EVAL_LOOP c"_PyEval_EvalFrameDefault"
    /// `PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, PY_TIMEOUT_T, int)`, 3.2+
    LOCK_TIMED c"PyThread_acquire_lock_timed"
    /// `int PyThread_acquire_lock(PyThread_type_lock, int)`: what waits in 2.7
    LOCK c"PyThread_acquire_lock"
    /// `int PyEvent_WaitTimed(PyEvent *, PyTime_t, int)`: waits for the end of a thread, 3.13+
    EVENT_TIMED c"PyEvent_WaitTimed"
    /// `PyObject *PyObject_CallFunctionObjArgs(PyObject *, ..., NULL)`
    CALL_OBJ_ARGS c"PyObject_CallFunctionObjArgs"
}

impl Symbol {
    /// First byte of the function and byte after the last, as the object file's symbol table says;
    /// zeros if it doesn't.
    pub fn range(&self) -> [u64; 2] {
        if !self.found() {
            return [0; 2];
        }
        let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        let mut entry: *const crate::got::ElfSymbol = core::ptr::null();
        // SAFETY: dladdr1(3) fills both in; the entry is in the loaded object's own table.
        unsafe {
            let found = dladdr1(
                self.address() as *const c_void,
                info.as_mut_ptr(),
                &mut entry as *mut _ as *mut *const c_void,
                RTLD_DL_SYMENT,
            );
            if found == 0 || entry.is_null() {
                return [0; 2];
            }
            let start = self.address() as u64;
            [start, start + (*entry).size as u64]
        }
    }
}

/// `dladdr1`'s flag: the symbol table's entry is wanted (dlfcn.h).
const RTLD_DL_SYMENT: libc::c_int = 1;

extern "C" {
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *const c_void,
        flags: libc::c_int,
    ) -> libc::c_int;
}

/// Calls `T (*)(void)`.
macro_rules! call {
    ($symbol:expr, fn($($arg:expr => $type:ty),*) $(-> $ret:ty)?) => {{
        let f: unsafe extern "C" fn($($type),*) $(-> $ret)? =
            core::mem::transmute::<usize, _>($symbol.address());
        f($($arg),*)
    }};
}
pub(crate) use call;

/// A Python object, never dereferenced through this type.
pub type Object = *mut c_void;

/// `Py_GetVersion`, as bytes without the NUL; `None` if this isn't a Python.
pub fn version() -> Option<&'static [u8]> {
    if !GET_VERSION.found() {
        return None;
    }
    // SAFETY: Py_GetVersion has no preconditions (documented: callable before initialisation)
    // and returns a static string.
    unsafe {
        let p: *const c_char = call!(GET_VERSION, fn() -> *const c_char);
        Some(CStr::from_ptr(p).to_bytes())
    }
}
