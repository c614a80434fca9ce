//! 3.9 to 3.11: the bound methods that exist only because calls are traced.
//!
//! While anything is traced, the interpreter makes one for every call of a C method. They would
//! show up in the line's allocated and freed bytes, so the type's `tp_descr_get` is wrapped: what
//! it allocates on behalf of a traced call is the profiler's. (A `getattr(x, "c_method")` in a
//! profiled line can't be told from that and is counted there, too.)

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use strandline_cpython::{traced_calls, Bytecode};

use crate::python::{self, word};
use crate::symbols::{self, Object};
use crate::tls::{tls, Quiet};

type DescrGet = unsafe extern "C" fn(Object, Object, Object) -> Object;

static BELOW: AtomicUsize = AtomicUsize::new(0);

/// Wraps the type, if this version has the matter. Under the GIL; once.
pub fn start() {
    let Some(facts) = python::layout().and_then(|l| traced_calls(l.version)) else { return };
    if !symbols::METHOD_DESCR_TYPE.found() || BELOW.load(Relaxed) != 0 {
        return;
    }
    let cell = (symbols::METHOD_DESCR_TYPE.address() + facts.tp_descr_get as usize) as *mut usize;
    let mine: DescrGet = bind;
    // SAFETY: a slot of a static type; the GIL is held, and the word is replaced in one store.
    unsafe {
        BELOW.store(*cell, Relaxed);
        *cell = mine as usize;
    }
}

unsafe extern "C" fn bind(descriptor: Object, object: Object, kind: Object) -> Object {
    // SAFETY: the type's own function with the arguments that it was called with.
    let call = || unsafe {
        let f: DescrGet = core::mem::transmute(BELOW.load(Relaxed));
        f(descriptor, object, kind)
    };
    if tls().stack.get() != 0 && super::trace::is_tracing() && in_call() {
        let _quiet = Quiet::new();
        return call();
    }
    call()
}

/// True if the running instruction is a call.
fn in_call() -> bool {
    let Some(l) = python::layout() else { return false };
    let Some(facts) = traced_calls(l.version) else { return false };
    let frame = python::current_frame(python::current_tstate());
    if frame == 0 {
        return false;
    }
    // SAFETY: the running frame of this thread, its code object and bytecode.
    let opcode = unsafe {
        match (&l.frame.interpreter, l.frame.object.f_code, l.frame.object.f_lasti, l.code.code) {
            (Some(f), ..) => *(word(frame + f.instr_ptr as usize) as *const u8),
            (None, Some(code), Some(lasti), Bytecode::Object(co_code)) => {
                let lasti = *((frame + lasti as usize) as *const i32);
                let offset = lasti as usize * l.frame.object.lasti_unit as usize;
                let bytes = word(word(frame + code as usize) + co_code as usize);
                *((bytes + l.bytes.data as usize + offset) as *const u8)
            }
            _ => return false,
        }
    };
    facts.opcodes.contains(&opcode)
}
