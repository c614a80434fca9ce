//! A bare run (`strandline remedies`): the program as it is without strandline, and its resident
//! memory at a few points.
//!
//! No allocator is wrapped, no line is traced, children are left alone: hooks forward. What is
//! added is two objects in the interpreter and an exit handler. The points are each
//! `strandline.mark()`, each return of an outermost function under `@profile`, and the end, right
//! before the interpreter takes itself down. A remedy that is an action (`gc.collect()`,
//! `malloc_trim(0)`, the pool trim) is done at one of them.
//!
//! Readings are exact: `Rss` of /proc/self/smaps_rollup (Linux 4.14; the kernel walks the page
//! tables, about a millisecond for 200 MiB). Where there is none, or where a program comes to its
//! points so often that this would show in its run time, it is statm, which the kernel keeps per
//! processor and which may be off by some pages for each. What this library has resident itself
//! is not in it.

use core::ffi::CStr;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use libc::{c_char, c_int, c_void};
use strandline_capture::layout::{self as capture, Noted};

use crate::environment::FOLLOWING;
use crate::fork::in_vfork_child;
use crate::front::{self, Native};
use crate::real::{self, libc_call};
use crate::region::{self, claimed, region};
use crate::sites::TSTATE_EPOCH;
use crate::symbols::{self, call, Object};
use crate::tls::tls;
use crate::{clock, footprint, malloc, pool_trim, proc, python, rss, setup};

/// The front of a bare run.
pub const FRONT: &str = concat!(include_str!("bare.py"), "\0");
/// What it is given.
pub static FUNCTIONS: [(&CStr, Native); 2] =
    [(c"native_enter", native_enter), (c"native_return", native_return)];

/// True if this is a bare run.
pub fn is() -> bool {
    region::options() & capture::OPTION_BARE != 0
}

/// Starts, in the constructor.
pub fn start() {
    footprint::start();
    let b = &region().head.bare;
    // A process that replaced itself goes on in the region that it had.
    for noted in [&b.marks, &b.returns, &b.before, &b.after, &b.end] {
        noted.count.store(0, Relaxed);
    }
    region().head.exit.when.store(0, Relaxed);
    b.flags.store(0, Relaxed);
    if !is_c_librarys(real::MALLOC.address()) {
        b.flags.fetch_or(capture::BARE_OTHER_MALLOC, Relaxed);
    }
    STARTED.store(clock::cycles(), Relaxed);
    if python::detect() && region().head.refusal.load(Relaxed) == 0 {
        crate::module::offer();
        setup::wait_for_python();
        malloc::start_watching();
    }
}

/// True if `function` lies in the same library as the C library's own `gnu_get_libc_version`.
fn is_c_librarys(function: usize) -> bool {
    // SAFETY: dladdr(3) fills in a struct for which all zeroes are valid; dlsym(3) with a C string.
    unsafe {
        let own = libc::dlsym(libc::RTLD_DEFAULT, c"gnu_get_libc_version".as_ptr());
        let base = |address: *const c_void| {
            let mut info: libc::Dl_info = core::mem::zeroed();
            (libc::dladdr(address, &mut info) != 0).then_some(info.dli_fbase)
        };
        let base_of_own = base(own);
        base_of_own.is_some() && base_of_own == base(function as *const c_void)
    }
}

/// A malloc hook was called and start-up isn't over. False once it is.
pub fn watch() -> bool {
    let tstate = python::held_tstate();
    if tstate != 0 {
        setup::python_runs(tstate);
    } else {
        setup::maybe_python_runs();
    }
    setup::is_waiting()
}

/// Python's pending calls run on the main thread, whose state is `tstate` from now to the end.
pub fn note_main_thread(tstate: usize) {
    tls().tstate.set(tstate);
    tls().tstate_epoch.set(TSTATE_EPOCH.load(Relaxed));
}

/// This process is about to execute another program in its place, or (`false`) it couldn't: the
/// new one takes over the region, if it is a Python.
pub fn replaced(is: bool) {
    if let Some(h) = region::header() {
        h.regions.store(u32::from(!is), Relaxed);
    }
    FOLLOWING.store(is, Relaxed);
}

/// Cycle at which the process started.
static STARTED: AtomicU64 = AtomicU64::new(0);
/// Cycles that exact readings took so far.
static READING: AtomicU64 = AtomicU64::new(0);
/// Number of exact readings that are taken whatever they cost.
const FREE_READINGS: i64 = 16;
/// Beyond them, exact readings take at most one of so many cycles.
const SHARE: u64 = 200;
static READINGS: AtomicI64 = AtomicI64::new(0);

/// This library's own resident bytes when an exact reading last asked.
static OWN: AtomicI64 = AtomicI64::new(0);

/// The program's resident bytes now, the agent's own taken off. `last`: it is read once.
fn resident(last: bool) -> i64 {
    let start = clock::cycles();
    let spent = READING.load(Relaxed).saturating_mul(SHARE);
    let cheap = spent < start.wrapping_sub(STARTED.load(Relaxed));
    let free = READINGS.fetch_add(1, Relaxed) < FREE_READINGS;
    if last || free || cheap {
        OWN.store(footprint::resident(), Relaxed);
        let exact = kib_of(c"/proc/self/smaps_rollup", b"\nRss:");
        READING.fetch_add(clock::cycles().wrapping_sub(start), Relaxed);
        if let Some(bytes) = exact {
            return bytes - OWN.load(Relaxed);
        }
    }
    region().head.bare.flags.fetch_or(capture::BARE_QUICK, Relaxed);
    rss::kernel_rss().unwrap_or(0) - OWN.load(Relaxed)
}

/// The number behind `name`, which starts a line of `file` and stands for KiB, in bytes.
fn kib_of(file: &CStr, name: &[u8]) -> Option<i64> {
    let mut text = [0u8; 2048];
    let text = proc::read(file, &mut text);
    let at = text.windows(name.len()).position(|w| w == name)? + name.len();
    let digits = text.get(at..)?.iter().skip_while(|b| b.is_ascii_whitespace());
    let digits = digits.take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0i64, |v, b| v.wrapping_mul(10).wrapping_add(i64::from(*b - b'0'))) * 1024)
}

fn note(to: &Noted, rss: i64) {
    to.rss.store(rss, Relaxed);
    to.count.fetch_add(1, Relaxed);
}

/// The program came to a point: `acting` if it is the one at which a remedy is to act.
fn point(to: &Noted, acting: bool) {
    let rss = resident(false);
    note(to, rss);
    if acting {
        act(rss);
    }
}

const ACTIONS: u32 = capture::OPTION_COLLECT | capture::OPTION_TRIM | capture::OPTION_POOL_TRIM;

/// Does what the remedy is, in this order, unless it isn't an action; `rss` is what was resident.
fn act(rss: i64) {
    let options = region::options();
    if options & ACTIONS == 0 {
        return;
    }
    let b = &region().head.bare;
    // Without the GIL nothing can be collected and no pool touched: the remedy counts as not done.
    let mut done = options & capture::OPTION_COLLECT == 0 || collect().is_some();
    if options & capture::OPTION_TRIM != 0 {
        // SAFETY: malloc_trim(3) has no preconditions.
        unsafe { libc_call!(real::MALLOC_TRIM, fn(0 => usize) -> c_int) };
    }
    if options & capture::OPTION_POOL_TRIM != 0 {
        let held = python::held_tstate() != 0;
        if held {
            pool_trim::trim();
        }
        done &= held;
    }
    if done {
        note(&b.before, rss);
        note(&b.after, resident(false));
    }
}

/// `gc.collect()`. Not `PyGC_Collect`, which does nothing where the program has called
/// `gc.disable()` (Modules/gcmodule.c, 3.7 and later).
fn collect() -> Option<()> {
    if python::held_tstate() == 0 {
        return None;
    }
    let some = |object: Object| (!object.is_null()).then_some(object);
    // SAFETY: documented API, live objects; this thread holds the GIL.
    unsafe {
        let end: Object = core::ptr::null_mut();
        let result = some(call!(symbols::IMPORT, fn(c"gc".as_ptr() => *const c_char) -> Object))
            .and_then(|module| {
                let name = c"collect".as_ptr();
                let f = call!(
                    symbols::GET_ATTR,
                    fn(module => Object, name => *const c_char) -> Object
                );
                call!(symbols::DEC_REF, fn(module => Object));
                some(f)
            })
            .and_then(|f| {
                let result =
                    call!(symbols::CALL_OBJ_ARGS, fn(f => Object, end => Object) -> Object);
                call!(symbols::DEC_REF, fn(f => Object));
                some(result)
            });
        match result {
            Some(result) => call!(symbols::DEC_REF, fn(result => Object)),
            None => call!(symbols::ERR_CLEAR, fn()),
        }
        result.map(|_| ())
    }
}

/// The program is about to exit.
pub fn end() {
    let b = &region().head.bare;
    if python::current_tstate() != 0 {
        b.flags.fetch_or(capture::BARE_ALIVE, Relaxed);
    }
    let at_points = capture::OPTION_AT_MARK | capture::OPTION_AT_RETURN;
    let options = region::options();
    if options & at_points == 0 && options & ACTIONS != 0 {
        act(resident(true));
    }
    note(&b.end, resident(true));
    let seen = [&b.marks, &b.returns, &b.before, &b.end];
    let seen = seen.map(|n| if n.count.load(Relaxed) == 0 { 0 } else { n.rss.load(Relaxed) });
    let kernels = kib_of(c"/proc/self/status", b"\nVmHWM:").unwrap_or(0) - OWN.load(Relaxed);
    b.peak.store(seen.into_iter().fold(kernels, i64::max), Relaxed);
    // SAFETY: getrusage(2) fills in a struct for which all zeroes are valid.
    let children = unsafe {
        let mut usage: libc::rusage = core::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage.ru_maxrss
    };
    b.children_peak.store(children * 1024, Relaxed);
}

/// True in the process that is measured: a forked child of it isn't.
fn is_measured() -> bool {
    claimed() && !in_vfork_child()
}

/// `strandline.mark()`: the point at which remedies are measured.
pub unsafe extern "C" fn native_mark(_: Object, _: Object) -> Object {
    if is_measured() {
        let marks = &region().head.bare.marks;
        if is() {
            point(marks, region::options() & capture::OPTION_AT_MARK != 0);
        } else {
            note(marks, rss::kernel_rss().unwrap_or(0));
        }
    }
    front::none()
}

/// (): a decorated function is called; true if it is the outermost one of this thread
unsafe extern "C" fn native_enter(_: Object, _: Object) -> Object {
    let depth = &tls().depth;
    depth.set(depth.get() + 1);
    // SAFETY: the GIL is held.
    unsafe { front::new_long(i64::from(depth.get() == 1)) }
}

/// (): it has returned
unsafe extern "C" fn native_return(_: Object, _: Object) -> Object {
    let depth = &tls().depth;
    depth.set(depth.get().saturating_sub(1));
    if depth.get() == 0 && is_measured() {
        let acting = region::options() & capture::OPTION_AT_RETURN != 0;
        point(&region().head.bare.returns, acting);
    }
    front::none()
}
