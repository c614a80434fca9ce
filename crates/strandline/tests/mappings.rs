//! `run --stacks`: memory that the program maps itself (`mmap`, `munmap`, `mremap`, `brk`), to the
//! byte, in all the ways in which pieces of it can go.

mod common;

use common::recorded::*;
use common::*;
use strandline_profile::{Domain, Process, Weight};

/// A unit is 1 MiB: the peak of the whole process is then that of the mappings.
const PRELUDE: &str = r#"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
size, pointer, i = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
libc.mmap.restype, libc.mmap.argtypes = pointer, [pointer, size, i, i, i, ctypes.c_long]
libc.mmap64.restype, libc.mmap64.argtypes = pointer, libc.mmap.argtypes
libc.munmap.argtypes = [pointer, size]
libc.mremap.restype, libc.mremap.argtypes = pointer, [pointer, size, size, i, pointer]
libc.sbrk.restype, libc.sbrk.argtypes = pointer, [ctypes.c_ssize_t]
libc.brk.argtypes = [pointer]
UNIT, FIXED, MAYMOVE, DONTUNMAP = 1 << 20, 0x10, 1, 4
FAILED = ctypes.c_void_p(-1).value
def take(units, at=None, flags=0, protection=3):
    return libc.mmap(at, units * UNIT, protection, 0x22 | flags, -1, 0)
def drop(p, units):
    assert libc.munmap(p, units * UNIT) == 0
def move(p, old, new, flags=MAYMOVE, to=None):
    return libc.mremap(p, old * UNIT, new * UNIT, flags, to)
def reserve(units):
    return take(units, protection=0)
"#;

fn units(p: &Process, functions: &[&str], weight: Weight) -> u64 {
    let fits = |path: &&strandline_profile::Path| {
        let names = names(p, path);
        let right = names.len() >= functions.len()
            && names.iter().zip(functions).all(|(name, function)| name.0 == *function);
        right && path.domain == Domain::Mmap
    };
    let bytes: u64 = p.paths.iter().filter(fits).map(|path| weight.of(path).bytes).sum();
    assert_eq!(bytes % (1 << 20), 0, "{functions:?}: {bytes}");
    bytes >> 20
}

fn ran(python: &Python, body: &str) -> Recorded {
    let recorded = record(python, &format!("{PRELUDE}{body}"));
    adds_up(&recorded.profile.processes[0]);
    recorded
}

/// What is left of a mapping when parts of it went, and what counts at the peak after that.
#[test]
fn parts_that_are_given_back() {
    let cases = [
        ("p = take(2); drop(p + UNIT, 1)", 1),
        ("p = take(4); drop(p, 1); drop(p + 2 * UNIT, 1)", 2),
        ("p = take(8); drop(p + 4 * UNIT, 1)", 7),
        ("p = take(9); [drop(p + k * UNIT, 1) for k in (1, 2, 3, 5, 6, 7)]", 3),
    ];
    each(|python| {
        for (case, left) in cases {
            let body =
                format!("def first():\n    {case}\ndef last():\n    take(10)\nfirst(); last()");
            let recorded = ran(python, &body);
            let p = &recorded.profile.processes[0];
            for weight in [Weight::InUse, Weight::Peak] {
                assert_eq!(units(p, &["take", "first"], weight), left, "{case}: {weight:?}");
                assert_eq!(units(p, &["take"], weight), left + 10, "{case}: {weight:?}");
            }
        }
    });
}

/// One call that takes several mappings and a gap between them.
#[test]
fn several_at_once() {
    let body = "
def first():
    p = reserve(40)
    for k in range(5):
        take(2, p + 3 * k * UNIT, FIXED)
    drop(p, 40)
def many():
    p = reserve(200)
    for k in range(100):
        take(1, p + 2 * k * UNIT, FIXED)
    drop(p, 199)
def last():
    libc.mmap64(None, 4 * UNIT, 3, 0x22, -1, 0)
first(); last(); many()
";
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let of = |function: &str, weight| units(p, &["take", function], weight);
        assert_eq!((of("first", Weight::Allocated), of("first", Weight::InUse)), (10, 0));
        assert_eq!((of("many", Weight::Allocated), of("many", Weight::InUse)), (100, 0));
        assert_eq!(of("many", Weight::Peak), 100);
        assert_eq!(units(p, &["last"], Weight::InUse), 4);
        assert_eq!(units(p, &["reserve"], Weight::Allocated), 0);
        assert_eq!(units(p, &["take", "reserve"], Weight::Allocated), 0);
    });
}

/// A mapping put over another one, by `mmap` and by `mremap`.
#[test]
fn one_over_another() {
    let body = "
def below():
    return take(6)
def above(p):
    take(2, p + UNIT, FIXED)
def hidden(p):
    take(1, p + 5 * UNIT, FIXED, 0)
def target():
    return take(5)
def source():
    return take(3)
def over(p):
    assert move(source(), 3, 3, MAYMOVE | 2, p) == p
    assert move(p + 100 * UNIT * UNIT, 1, 1, MAYMOVE | 2, p) == FAILED
p = below(); above(p); hidden(p)
q = target(); over(q + UNIT)
";
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let left = |functions: &[&str]| units(p, functions, Weight::InUse);
        assert_eq!(left(&["take", "below"]), 3);
        assert_eq!(left(&["take", "above"]), 2);
        assert_eq!(left(&["take", "hidden"]), 0);
        assert_eq!(left(&["take", "target"]), 2);
        assert_eq!(left(&["take", "source"]), 0);
        assert_eq!(left(&["move", "over"]), 3);
    });
}

#[test]
fn mappings_that_change_their_size() {
    let body = "
def grow():
    p = take(10); return move(p, 10, 60)
def shrink():
    p = take(10); return move(p, 10, 4)
def fail():
    p = take(10); assert move(p, 10, 20, 0x100) == FAILED
def piece():
    p = take(10); return move(p + 2 * UNIT, 3, 5)
def empty():
    p = take(3); assert move(p, 3, 3, MAYMOVE | DONTUNMAP) not in (p, FAILED)
grow(); shrink(); fail(); piece()
import sys
release = tuple(int(n) for n in open('/proc/sys/kernel/osrelease').read().split('-')[0].split('.')[:2])
if release >= (5, 7):
    empty()
print(release >= (5, 7))
";
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let left = |function: &str| {
            let of = |called: &str| units(p, &[called, function], Weight::InUse);
            (of("take"), of("move"))
        };
        assert_eq!(left("grow"), (0, 60));
        assert_eq!(left("shrink"), (0, 4));
        assert_eq!(left("fail"), (10, 0));
        assert_eq!(left("piece"), (7, 5));
        if recorded.ran.stdout == "True\n" {
            assert_eq!(left("empty"), (3, 3));
        }
    });
}

/// The program moves the break, by itself and in between malloc's own moves.
#[test]
fn the_break() {
    let body = "
libc.malloc.restype, libc.malloc.argtypes = pointer, [size]
blocks = []
def malloc():
    blocks.extend(libc.malloc(100000) for _ in range(40))
def up():
    p = libc.sbrk(5 * UNIT)
    assert p != FAILED
    ctypes.memset(p, 1, 5 * UNIT)
def down():
    p = libc.sbrk(4 * UNIT)
    assert libc.sbrk(-3 * UNIT) == p + 4 * UNIT
def to():
    p = libc.sbrk(0)
    assert libc.brk(p + 7 * UNIT) == 0
    assert libc.brk(p + 2 * UNIT) == 0
def too_much():
    assert libc.sbrk(1 << 60) == FAILED
    assert libc.brk(1 << 60) != 0
up(); malloc(); down(); to(); malloc(); too_much()
";
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let of = |function: &str| {
            let all = units(p, &[function], Weight::Allocated);
            (all, units(p, &[function], Weight::InUse))
        };
        assert_eq!(of("up"), (5, 5));
        assert_eq!(of("down"), (4, 1));
        assert_eq!(of("to"), (7, 2));
        assert_eq!(of("too_much"), (0, 0));
        // What the program took between malloc's parts of the break is not stranded.
        let heap = p.totals.stranded_heap;
        assert!(heap < 5 << 20, "{heap}");
    });
}
