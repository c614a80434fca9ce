//! Causes of `strandline explain` that no case has: each in a program that makes it, with its bytes.

mod common;

use common::standing::*;
use common::*;

fn few(version: (u32, u32)) -> bool {
    [(2, 7), (3, 8), (3, 11), (3, 13)].contains(&version)
}

/// Bytes of a cause, and whether another one counts them as well.
fn cause(explained: &Value, name: &str) -> (u64, bool) {
    let all = explained["causes"].as_array().unwrap();
    let found = all.iter().find(|c| c["name"] == name);
    found.map_or((0, false), |c| (u(c, "bytes"), c["overlaps"] == true))
}

/// Within 3 % or 0.3 MiB.
fn about(bytes: u64, truth: u64) {
    let off = bytes.abs_diff(truth);
    assert!(off <= (truth * 3 / 100).max(300 << 10), "{bytes} bytes, not {truth}");
}

/// RSS of the mapping of `size` bytes, by smaps.
fn resident_of_mapping(pid: u32, size: u64) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let of = |line: &str, field: &str| {
        line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let mut lines = text.lines();
    lines.find(|line| of(line, "Size:") == Some(size / 1024)).expect("no such mapping");
    lines.find_map(|line| of(line, "Rss:")).unwrap() * 1024
}

/// Sum of a field of smaps over the mappings that `fits`, bytes.
fn smaps(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let of = |line: &str| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
    text.lines().filter_map(of).sum::<u64>() * 1024
}

#[test]
fn pages_shared_with_a_child() {
    one_of_each(few, |python| {
        let code = "
import os, signal
data = bytearray(b'x') * (30 << 20)
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    signal.pause()
say('child', pid)
";
        let s = Standing::start(python, code);
        let (bytes, overlaps) = cause(&s.explained(), "copy_on_write");
        // SAFETY: kill(2) on the child that the program says it has.
        unsafe { libc::kill(s.number("child") as i32, libc::SIGKILL) };
        assert!(overlaps && bytes >= 30 << 20, "{bytes}");
        assert!(bytes <= s.rss(), "{bytes} of {}", s.rss());
    });
}

#[test]
fn memory_shared_with_others() {
    one_of_each(few, |python| {
        let code = "
import mmap
shared = mmap.mmap(-1, 20 << 20)
shared[:] = b'x' * (20 << 20)
";
        let explained = Standing::start(python, code).explained();
        about(cause(&explained, "shared_memory").0, 20 << 20);
        let verdict = (explained["verdict"].as_str(), explained["reason"].as_str());
        assert_eq!(verdict, (Some("not_python"), Some("shared_memory")), "{explained:#}");
    });
}

#[test]
fn huge_pages_are_those_that_the_kernel_counts() {
    one_of_each(few, |python| {
        // 14 is MADV_HUGEPAGE.
        let code = "
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
size = 32 << 20
at = libc.mmap(None, size, 3, 0x22, -1, 0)
libc.madvise(at, size, 14)
ctypes.memset(at, 1, size)
";
        let s = Standing::start(python, code);
        let (bytes, _) = cause(&s.explained(), "huge_pages");
        assert_eq!(bytes, smaps(s.pid(), "AnonHugePages:"));
    });
}

#[test]
fn what_a_threads_arena_keeps() {
    one_of_each(few, |python| {
        let code = "
import threading
kept = []
def fill():
    gone = [bytearray(60000) for _ in range(400)]
    kept.extend(bytearray(60001) for _ in range(5))
    del gone
t = threading.Thread(target=fill)
t.start(); t.join()
";
        let explained = Standing::start(python, code).explained();
        about(cause(&explained, "glibc_thread_arenas").0, 400 * 60_032);
    });
}

#[test]
fn what_a_thread_keeps_in_its_cache() {
    one_of_each(few, |python| {
        // Seven of each size up to 1,032 bytes (TCACHE_FILL_COUNT), heads included; the other sizes
        // of a cache's 64 are 16 bytes apart.
        let code = "
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
sizes = [n for n in range(24, 1033, 16) for _ in range(7)]
def last():
    for at in [libc.malloc(n) for n in sizes]:
        libc.free(at)
";
        let explained = Standing::start(python, code).explained();
        let all: u64 = (24..1033).step_by(16).map(|n| 7 * (n + 8)).sum();
        let (bytes, _) = cause(&explained, "glibc_thread_caches");
        // Some are taken again by what the program does before it sleeps.
        assert!(bytes <= all && bytes > all * 3 / 4, "{bytes} of {all}");
    });
}

#[test]
fn the_last_arena_that_got_empty() {
    let new = |version| [(3, 10), (3, 11), (3, 13)].contains(&version);
    one_of_each(new, |python| {
        // `insert_to_freepool` (Objects/obmalloc.c) keeps the one at the end of its list, of 1 MiB.
        let code = "
gone = [object() for _ in range(400000)]
del gone
";
        let explained = Standing::start(python, code).explained();
        about(cause(&explained, "empty_arenas").0, 1 << 20);
    });
}

#[test]
fn what_a_deep_call_left_of_a_stack() {
    one_of_each(few, |python| {
        // An argument of 24 MiB is copied to the stack of the thread that calls, twice by some.
        let code = "
import ctypes, threading
libc = ctypes.CDLL(None)
class Large(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_char * (24 << 20))]
called, end = threading.Event(), threading.Event()
def deep():
    libc.getpid(Large())
    called.set()
    end.wait()
threading.stack_size(80 << 20)
t = threading.Thread(target=deep)
t.daemon = True
t.start()
called.wait()
";
        let s = Standing::start(python, code);
        let stack = resident_of_mapping(s.pid(), 80 << 20);
        assert!(stack >= 24 << 20, "{stack}");
        about(cause(&s.explained(), "unused_stacks").0, stack);
    });
}

#[test]
fn small_blocks_in_fast_bins() {
    one_of_each(few, |python| {
        // Chunks of 80 bytes (up to 128 are fast, `DEFAULT_MXFAST`); seven are in the thread's
        // cache.
        let code = "
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free.restype = None
free = libc.free
blocks = [libc.malloc(72) for _ in range(200000)]
def last():
    for at in blocks:
        free(at)
";
        let explained = Standing::start(python, code).explained();
        about(cause(&explained, "glibc_fast_bins").0, 200_000 * 80);
    });
}
