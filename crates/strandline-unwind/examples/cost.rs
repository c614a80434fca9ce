//! What a frame costs: this crate beside libgcc's `_Unwind_Backtrace`, from a chain of calls.
//!
//! `cargo run --release -p strandline-unwind --example cost`
#![allow(missing_docs)]

use std::ffi::{c_int, c_void};
use std::hint::black_box;

use strandline_unwind::{capture, refresh, StackCache};

#[link(name = "gcc_s")]
extern "C" {
    fn _Unwind_Backtrace(
        f: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        arg: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

unsafe extern "C" fn count(context: *mut c_void, hash: *mut c_void) -> c_int {
    // SAFETY: libgcc gives its context, and the pointer that it was given.
    unsafe {
        let state = &mut *hash.cast::<(usize, u64)>();
        *state = (state.0 + 1, fold(state.1, _Unwind_GetIP(context)));
    }
    0
}

fn fold(hash: u64, pc: usize) -> u64 {
    (hash.rotate_left(5) ^ pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(never)]
fn deep(depth: usize, leaf: &dyn Fn()) -> usize {
    if depth == 0 {
        leaf();
        return 0;
    }
    // Frames of many sizes, and more than one return address.
    let pad = black_box([depth; 9]);
    let below = match depth % 5 {
        0 => wide(depth, leaf),
        1 => deep(depth - 1, leaf) + 1,
        2 => deep(depth - 1, leaf) ^ 3,
        3 => deep(depth - 1, leaf) * 3,
        _ => deep(depth - 1, leaf) | pad[1],
    };
    below.wrapping_add(pad[0])
}

#[inline(never)]
fn wide(depth: usize, leaf: &dyn Fn()) -> usize {
    let pad = black_box([depth; 200]);
    deep(depth - 1, leaf).wrapping_add(pad[7])
}

/// Nanoseconds that this thread ran: the machine may be busy.
fn processor_time() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) fills `now` in.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn time(name: &str, rounds: u32, walk: impl Fn() -> usize) {
    let start = processor_time();
    let mut frames = 0;
    for _ in 0..rounds {
        frames += walk();
    }
    let nanoseconds = processor_time() - start;
    println!(
        "{name:36} {:7.1} ns a frame, {:8.0} ns a stack of {} frames",
        nanoseconds / frames as f64,
        nanoseconds / f64::from(rounds),
        frames / rounds as usize
    );
}

fn main() {
    refresh();
    let stack = StackCache::new();
    let ours = || {
        let mut state = (0usize, 0u64);
        if let Some(bounds) = stack.bounds() {
            capture(bounds, |frame| {
                state = (state.0 + 1, fold(state.1, frame.instruction()));
                true
            });
        }
        black_box(state.1);
        state.0
    };
    let libgcc = || {
        let mut state = (0usize, 0u64);
        // SAFETY: `count` keeps to libgcc's contract.
        unsafe { _Unwind_Backtrace(count, (&raw mut state).cast()) };
        black_box(state.1);
        state.0
    };
    for depth in [20, 50, 200] {
        deep(depth, &|| {
            strandline_unwind::forget();
            time("cold (first sight of every address)", 1, ours);
            time("warm", 100_000, ours);
            time("libgcc's _Unwind_Backtrace", 2_000, libgcc);
        });
    }
    let cold = 500;
    deep(50, &|| {
        time("cold, average", cold, || {
            strandline_unwind::forget();
            ours()
        });
    });
}
