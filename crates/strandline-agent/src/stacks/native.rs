//! `--native`: the frames of C, C++ and Rust code, by unwinding this thread's machine stack.
//!
//! Their return addresses are folded into the hash of the Python frames; only a hash that is new
//! has its frames told apart ([`super::merge`]). A frame is a site like a line of Python: its
//! "code" is a library, its "line" an address in it. Names are looked up by strandline, after the
//! run. Without `--native` nothing of this is called.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use libc::{c_int, c_void};
use strandline_capture::layout::OPTION_NATIVE;
use strandline_unwind::modules::{self, Module};
use strandline_unwind::{capture, End, Range};

use super::path::DEEPEST;
use crate::map::Map;
use crate::python::FACTOR;
use crate::real::{self, libc_call};
use crate::region::{self, region, store_text};
use crate::sites;
use crate::tls::tls;

static ON: AtomicBool = AtomicBool::new(false);
/// This is a forked child: the loader's lock may be held by a thread that isn't here.
static FORKED: AtomicBool = AtomicBool::new(false);
/// The agent's own code and data: first address, bytes.
static OWN: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// True if frames of machine code are recorded.
#[inline(always)]
pub fn on() -> bool {
    ON.load(Relaxed)
}

/// Starts to record them if that is wanted. Called in the constructor, before hooks are installed.
pub fn start() {
    if !super::on() || region::options() & OPTION_NATIVE == 0 {
        return;
    }
    strandline_unwind::refresh();
    let Some(Range { start, end }) = modules::at(start as *const () as usize).map(|m| m.1.extent)
    else {
        return;
    };
    OWN[0].store(start, Relaxed);
    OWN[1].store(end - start, Relaxed);
    super::merge::start();
    ON.store(true, Relaxed);
    super::path::will_have_more();
}

/// After a fork, in the child.
pub fn after_fork() {
    if on() {
        FORKED.store(true, Relaxed);
        modules::after_fork();
    }
}

/// Resident bytes of the unwinder's tables.
pub fn resident() -> i64 {
    if on() {
        strandline_unwind::resident() as i64
    } else {
        0
    }
}

/// Finds modules that were loaded since, where the C library can't be asked about an address. The
/// caller doesn't hold the agent's lock: this takes the loader's.
pub fn look_for_modules() {
    if on() && !modules::finds_later_ones() && !FORKED.load(Relaxed) {
        strandline_unwind::refresh();
    }
}

/// `dlclose`: what is known by the library's addresses doesn't hold any more. (`dlopen` is left
/// alone: it looks at who calls it. A library that is new is noticed by its addresses.)
///
/// # Safety
/// As libc's.
pub unsafe fn dlclose(library: *mut c_void) -> c_int {
    if real::DLCLOSE.address() == 0 {
        return -1;
    }
    // SAFETY: libc's dlclose.
    let status = unsafe { libc_call!(real::DLCLOSE, fn(library => *mut c_void) -> c_int) };
    if on() {
        strandline_unwind::refresh();
    }
    status
}

/// True if `address` is in the agent.
#[inline(always)]
pub fn is_own(address: usize) -> bool {
    address.wrapping_sub(OWN[0].load(Relaxed)) < OWN[1].load(Relaxed)
}

/// `hash` with the frames of machine code that run on this thread now, but the agent's own: the
/// same wherever in the agent it is asked for.
#[inline(never)]
pub fn fold(hash: u64) -> u64 {
    let Some(bounds) = tls().native.bounds() else { return hash };
    let (own, bytes) = (OWN[0].load(Relaxed), OWN[1].load(Relaxed));
    let mut hash = hash.wrapping_add(strandline_unwind::epoch() as u64);
    let mut left = DEEPEST;
    capture(bounds, |frame| {
        if frame.pc.wrapping_sub(own) >= bytes {
            hash = hash.wrapping_add(frame.pc as u64).wrapping_mul(FACTOR);
        }
        left -= 1;
        left != 0
    });
    hash
}

/// A frame of machine code.
#[derive(Clone, Copy)]
pub struct Native {
    /// An address inside the instruction that it runs.
    pub address: usize,
    /// Address of the next one that it runs: where a call returns to.
    pub next: usize,
    /// Where its part of the stack begins.
    pub sp: usize,
}

/// Fills `into` with this thread's frames, innermost first, the agent's included; how many, the
/// lowest and the highest address of the stack, and whether that is all of them or nothing tells
/// where the others are.
pub fn frames(into: &mut [Native]) -> Option<(usize, strandline_unwind::StackBounds, bool)> {
    let bounds = tls().native.bounds()?;
    let mut count = 0;
    let end = capture(bounds, |frame| match into.get_mut(count) {
        Some(to) => {
            *to = Native { address: frame.instruction(), next: frame.pc, sp: frame.sp };
            count += 1;
            true
        }
        None => false,
    });
    Some((count, bounds, end != End::Stopped))
}

/// Sites by address, of the unwinder's current epoch. Under the agent's lock.
static SITES: Map = Map::new();
/// The capture's codes by index of a module plus one. Under the agent's lock.
static CODES: Map = Map::new();

/// Makes all that is known by address be forgotten. The caller holds the agent's lock.
pub fn forget_addresses() {
    SITES.clear();
}

/// The site of the instruction at `address`, code that this thread runs. `Ok(0)`: it is in no
/// library (code that was made at run time); `Err`: a table is full. The caller holds the lock.
pub fn site_of(address: usize) -> Result<u32, ()> {
    if let Some(site) = SITES.get(address as u64) {
        return Ok(site);
    }
    let Some((index, module)) = modules::at(address) else { return Ok(0) };
    // A library of 4 GiB is none that anybody has.
    let Ok(offset) = u32::try_from(address.wrapping_sub(module.bias)) else { return Ok(0) };
    let code = code_of(index, module).ok_or(())?;
    match sites::site(code, offset) {
        0 => Err(()),
        site => {
            SITES.insert(address as u64, site);
            Ok(site)
        }
    }
}

/// The capture's entry for a library; `None` if the table is full.
fn code_of(index: usize, module: &Module) -> Option<u32> {
    let key = index as u64 + 1;
    if let Some(code) = CODES.get(key) {
        return Some(code);
    }
    let r = region();
    let code = r.head.codes.load(Relaxed);
    let c = r.codes.get(code as usize)?;
    let mut hex = [0u8; 64];
    let mut digits = hex.iter_mut();
    for byte in module.build_id() {
        for digit in [byte >> 4, byte & 15] {
            *digits.next()? = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        }
    }
    for (field, text) in
        [(&c.file, module.path), (&c.name, hex.get(..2 * module.build_id().len())?)]
    {
        let (offset, len) = store_text(text);
        field.offset.store(offset, Relaxed);
        field.len.store(len, Relaxed);
    }
    c.native.store(1, Relaxed);
    if !CODES.insert(key, code) {
        return None;
    }
    r.head.codes.store(code + 1, Relaxed);
    Some(code)
}
