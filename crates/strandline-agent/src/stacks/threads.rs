//! Which thread allocates: a number for each, and its name.
//!
//! The name is the one that `threading` knows (the attribute of the `Thread` object that the
//! thread's outermost frame works for), or the one that the thread gives itself through the C
//! library; a thread that changes its name goes on under a new number.

use core::sync::atomic::Ordering::Relaxed;

use libc::{c_char, c_int};

use super::{on, stacks};
use crate::lock;
use crate::python::{self, word};
use crate::real::{self, libc_call};
use crate::region::store_text;
use crate::symbols::{self, call, Object};
use crate::tls::{tls, Quiet};

/// Index of this thread into the capture's table; 0: it has none.
#[inline(always)]
pub fn mine() -> u32 {
    tls().thread.get().saturating_sub(1)
}

/// Gives this thread, which holds the GIL and whose state is `tstate`, a number unless it has one.
#[inline]
pub fn with_gil(tstate: usize) {
    let t = tls();
    let tries = t.named.get();
    if tries >= TRIES {
        return;
    }
    let mut name = [0; 256];
    let len = name_of(tstate, &mut name);
    let name = name.get(..len).unwrap_or(&[]);
    if t.thread.get() == 0 {
        assign(name);
    } else if len > 0 {
        rename(name);
    }
    // At its first allocation a thread has no frame yet.
    t.named.set(if len > 0 { TRIES } else { tries + 1 });
}

/// True if this thread's number and name stay as they are, as far as [`with_gil`] goes.
#[inline]
pub fn is_settled() -> bool {
    tls().named.get() >= TRIES
}

/// How often the name of a thread is looked for.
const TRIES: u32 = 16;

/// Gives this thread's number a name.
fn rename(name: &[u8]) {
    let Some(_guard) = lock::lock() else { return };
    let Some(thread) = stacks().threads.get(mine() as usize).filter(|_| mine() != 0) else {
        return;
    };
    let (offset, len) = store_text(name);
    thread.name.offset.store(offset, Relaxed);
    thread.name.len.store(len, Relaxed);
}

/// The same for a thread without the GIL.
#[inline]
pub fn without_gil() {
    if tls().thread.get() == 0 {
        assign(if is_main() { b"MainThread" } else { b"" });
        tls().named.set(if is_main() { TRIES } else { 0 });
    }
}

fn tid() -> u32 {
    // SAFETY: gettid(2) cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

fn is_main() -> bool {
    // SAFETY: getpid(2) cannot fail.
    tid() == unsafe { libc::getpid() } as u32
}

#[cold]
fn assign(name: &[u8]) {
    let Some(_guard) = lock::lock() else { return };
    let s = stacks();
    let index = s.head.threads.load(Relaxed);
    let Some(thread) = s.threads.get(index as usize) else {
        tls().thread.set(1);
        return;
    };
    let (offset, len) = store_text(name);
    thread.name.offset.store(offset, Relaxed);
    thread.name.len.store(len, Relaxed);
    thread.tid.store(tid(), Relaxed);
    s.head.threads.store(index + 1, Relaxed);
    tls().thread.set(index + 1);
}

/// After a fork: the child's thread has another number in the kernel.
pub fn after_fork() {
    let t = tls();
    if let Some(thread) = stacks().threads.get(mine() as usize).filter(|_| mine() != 0) {
        thread.tid.store(tid(), Relaxed);
    }
    t.recent_at.set(0);
}

/// The name that `threading` has for the thread whose state is `tstate`; its length in `into`,
/// 0 if there is none (yet).
fn name_of(tstate: usize, into: &mut [u8]) -> usize {
    let copy = |name: &[u8], into: &mut [u8]| {
        let len = name.len().min(into.len());
        for (to, from) in into.iter_mut().zip(name) {
            *to = *from;
        }
        len
    };
    if is_main() {
        return copy(b"MainThread", into);
    }
    let (Some(l), true) = (python::layout(), symbols::GENERIC_GET_ATTR.found()) else { return 0 };
    let frame = outermost(tstate);
    let Some(place) = python::place_at(frame) else { return 0 };
    let is_bootstrap = lock::lock().is_some_and(|_guard| {
        let identity = python::identity(place.code);
        let file = identity.file();
        (file.ends_with(b"threading.py") || file.ends_with(b"threading.pyc"))
            && identity.name().ends_with(b"_bootstrap")
    });
    if !is_bootstrap {
        return 0;
    }
    let slots = match &l.frame.interpreter {
        Some(f) => f.slots(),
        None => l.frame.object.slots(),
    };
    let attribute: &[u8] = if l.version < (3, 0) { b"_Thread__name" } else { b"_name" };
    let _quiet = Quiet::new();
    // SAFETY: the frame is alive and its first slot is the method's `self`; the GIL is held. The
    // lookup reads the object's dict and runs no code of the program's.
    unsafe {
        let thread = word(frame + slots as usize) as Object;
        if thread.is_null() || !call!(symbols::ERR_OCCURRED, fn() -> Object).is_null() {
            return 0;
        }
        let make = if l.version < (3, 0) { &symbols::STRING_NEW } else { &symbols::UNICODE_NEW };
        let key = call!(
            make,
            fn(attribute.as_ptr() => *const u8, attribute.len() => usize) -> Object
        );
        if key.is_null() {
            call!(symbols::ERR_CLEAR, fn());
            return 0;
        }
        let name = call!(symbols::GENERIC_GET_ATTR, fn(thread => Object, key => Object) -> Object);
        call!(symbols::DEC_REF, fn(key => Object));
        if name.is_null() {
            call!(symbols::ERR_CLEAR, fn());
            return 0;
        }
        let len = match lock::lock() {
            Some(_guard) if python::is_text(name as usize) => {
                copy(python::text_of(name as usize), into)
            }
            _ => 0,
        };
        call!(symbols::DEC_REF, fn(name => Object));
        len
    }
}

/// The outermost frame with code on `tstate`; 0 if none.
fn outermost(tstate: usize) -> usize {
    let (mut frame, mut last) = (python::current_frame(tstate), 0);
    while frame != 0 {
        if python::place_at(frame).is_some() {
            last = frame;
        }
        frame = python::caller_of(frame);
    }
    last
}

/// Longest name of a thread that the kernel keeps, its NUL included (prctl(2)).
const KERNEL_NAME: usize = 16;

/// This thread calls itself `name`, a C string.
fn renamed(name: *const c_char) {
    if !on() || !crate::malloc::counting() || name.is_null() {
        return;
    }
    let mut text = [0u8; KERNEL_NAME];
    let mut len = 0;
    for cell in text.iter_mut().take(KERNEL_NAME - 1) {
        // SAFETY: a C string, read up to its NUL.
        *cell = unsafe { *name.add(len) } as u8;
        if *cell == 0 {
            break;
        }
        len += 1;
    }
    assign(text.get(..len).unwrap_or(&[]));
    tls().named.set(TRIES);
}

/// `prctl`.
///
/// # Safety
/// As libc's.
pub unsafe fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    // SAFETY: libc's prctl.
    let status = unsafe {
        libc_call!(
            real::PRCTL,
            fn(option => c_int, a => usize, b => usize, c => usize, d => usize) -> c_int
        )
    };
    if option == libc::PR_SET_NAME && status == 0 {
        renamed(a as *const c_char);
    }
    status
}

/// `pthread_setname_np`.
///
/// # Safety
/// As libc's.
pub unsafe fn pthread_setname(thread: usize, name: *const c_char) -> c_int {
    // SAFETY: libc's pthread_setname_np.
    let status = unsafe {
        libc_call!(real::PTHREAD_SETNAME, fn(thread => usize, name => *const c_char) -> c_int)
    };
    // SAFETY: pthread_self(3) cannot fail.
    if status == 0 && thread == unsafe { libc::pthread_self() } as usize {
        renamed(name);
    }
    status
}
