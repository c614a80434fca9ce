//! `run --stacks` under the drivers that memray's own tests use (`memray._test` of its wheel), and
//! with greenlets: interpreters that have both are named in `STRANDLINE_TEST_DRIVERS`, separated
//! by colons.

mod common;

use common::recorded::*;
use common::*;
use strandline_profile::{Amount, Domain, Path, Process};

const NAMES: &str = "STRANDLINE_TEST_DRIVERS";

fn each_that_has_them(check: impl Fn(&Python)) {
    let Some(list) = std::env::var_os(NAMES) else {
        eprintln!("LEFT OUT: {NAMES} names no interpreter with memray and greenlet");
        return;
    };
    let paths = std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty());
    for python in paths.map(|path| interpreter(&path)) {
        check(&python);
    }
}

fn blocks(n: u64, bytes: u64) -> Amount {
    Amount { bytes: n * bytes, blocks: n }
}

/// What was asked for by this function through the drivers' own function of Python.
fn driven(p: &Process, function: &str) -> (Amount, Amount) {
    let fits = |path: &&Path| {
        path.domain == Domain::Malloc && names(p, path).get(1).is_some_and(|n| n.0 == function)
    };
    let sum = |of: fn(&Path) -> Amount| {
        p.paths.iter().filter(fits).map(of).fold(Amount::default(), Amount::plus)
    };
    (sum(|path| path.allocated), sum(|path| path.freed))
}

const FAMILY: &str = r#"
from memray._test import MemoryAllocator, MmapAllocator, PymallocDomain, PymallocMemoryAllocator
allocator = MemoryAllocator()
def by_malloc(): return allocator.malloc(81920)
def by_calloc(): return allocator.calloc(81920)
def by_realloc(): return allocator.realloc(81920)
def by_posix_memalign(): return allocator.posix_memalign(81920)
def by_aligned_alloc(): return allocator.aligned_alloc(81920)
def by_memalign(): return allocator.memalign(81920)
def by_valloc(): return allocator.valloc(81920)
def by_pvalloc(): return allocator.pvalloc(81920)
for f in [by_malloc, by_calloc, by_realloc, by_posix_memalign, by_aligned_alloc, by_memalign, by_valloc, by_pvalloc]:
    assert f()
    allocator.free()
    assert f()
for domain in PymallocDomain:
    python = PymallocMemoryAllocator(domain)
    exec('''
def malloc_%d(): return python.malloc(81920)
def calloc_%d(): return python.calloc(81920)
def realloc_%d(): return python.realloc(81920)
for f in [malloc_%d, calloc_%d]:
    assert f()
    python.free()
    assert f()
assert realloc_%d()
python.free()
''' % ((domain.value,) * 6))
def mapped(): return MmapAllocator(8192)
m = mapped()
m.munmap(4096, 4096)
"#;

#[test]
fn one_block_and_its_end() {
    each_that_has_them(|python| {
        let recorded = record(python, FAMILY);
        let p = &recorded.profile.processes[0];
        adds_up(p);
        for name in
            ["malloc", "calloc", "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc"]
        {
            let found = driven(p, &format!("by_{name}"));
            assert_eq!(found, (blocks(2, 81_920), blocks(1, 81_920)), "{name}");
        }
        // The driver's realloc grows a block of 1 byte.
        let (made, freed) = driven(p, "by_realloc");
        assert_eq!((made.bytes, made.blocks), (2 * 81_921, 4));
        assert_eq!((freed.bytes, freed.blocks), (81_920 + 2, 3));
        for (number, domain) in [(1, Domain::Raw), (2, Domain::Mem), (3, Domain::Object)] {
            let of = |name: &str| big(p, &format!("{name}_{number}"), domain);
            let one = blocks(1, 81_920);
            assert_eq!(of("malloc"), (blocks(2, 81_920), one), "{domain:?}");
            // The block that `realloc` is given is calloc's, malloc's is lost.
            assert_eq!(of("calloc"), (blocks(2, 81_920), blocks(2, 81_920)), "{domain:?}");
            assert_eq!(of("realloc"), (one, one), "{domain:?}");
        }
        let (mapped, gone) = asked(p, "mapped", Domain::Mmap);
        assert_eq!((mapped.bytes, gone.bytes), (8192, 4096));
    });
}

/// `asked`, of what is large: functions make small objects of their own.
fn big(p: &Process, function: &str, domain: Domain) -> (Amount, Amount) {
    let (made, freed) = asked(p, function, domain);
    let large = |a: Amount| blocks(a.bytes / 81_920, 81_920);
    (large(made), large(freed))
}

const RECURSION: &str = r#"
from memray._test import MemoryAllocator, function_caller, allocate_without_gil_held, exit
import os, threading
allocator = MemoryAllocator()
def take():
    allocator.valloc(123456)
def callback(n):
    return lambda: run_recursive(n)
def run_recursive(n):
    if n == 0:
        return take()
    function_caller(lambda: run_recursive(n - 1))
run_recursive(4)
def unlocked():
    main, other = os.pipe(), os.pipe()
    thread = threading.Thread(target=without, args=(main[1], other[0]))
    thread.start()
    os.read(main[0], 1)
    os.write(other[1], b"x")
    thread.join()
def without(a, b):
    allocate_without_gil_held(a, b)
unlocked()
def foreign():
    allocator.valloc(234567)
allocator.run_in_pthread(foreign)
exit(py_finalize=True)
"#;

#[test]
fn through_c_and_back_and_to_the_end() {
    each_that_has_them(|python| {
        let recorded = record(python, RECURSION);
        let p = &recorded.profile.processes[0];
        let paths = |function: &str| {
            let all = p.paths.iter().filter(|path| path.domain == Domain::Malloc);
            let all = all.map(|path| (names(p, path), path.allocated));
            let all = all.filter(|(names, _)| names.get(1).is_some_and(|n| n.0 == function));
            all.map(|(names, made)| (names.iter().map(|n| n.0.to_owned()).collect(), made))
                .collect::<Vec<(Vec<String>, Amount)>>()
        };
        let taken = paths("take");
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(taken[0].1, blocks(1, 123_456));
        let recursive = taken[0].0.iter().filter(|name| *name == "run_recursive").count();
        let through = taken[0].0.iter().filter(|name| name.contains("<lambda>")).count();
        assert_eq!((recursive, through), (5, 4), "{taken:?}");
        let (made, freed) = asked(p, "without", Domain::Malloc);
        assert_eq!((made.bytes, made.blocks, freed), (1234 + 4321, 2, made));
        let foreign = paths("foreign");
        assert_eq!(
            foreign[0],
            (vec!["valloc".to_owned(), "foreign".to_owned()], blocks(1, 234_567))
        );
    });
}

const VECTOR: &str = r#"
from memray._test import fill_cpp_vector
def grow():
    return fill_cpp_vector(2 << 10)
assert grow() == 512
"#;

#[test]
fn a_vector_that_grows() {
    each_that_has_them(|python| {
        let recorded = record(python, VECTOR);
        let p = &recorded.profile.processes[0];
        let grown = p.paths.iter().filter(|path| {
            path.domain == Domain::Malloc && names(p, path).first().is_some_and(|n| n.0 == "grow")
        });
        assert_eq!(grown.map(|path| path.temporary.blocks).sum::<u64>(), 10);
    });
}

const GREENLETS: &str = r#"
import greenlet
from memray._test import MemoryAllocator
kept = []
def take(n):
    kept.append(MemoryAllocator())
    kept[-1].valloc(n << 17)
def nested(n, other):
    take(n)
    other.switch()
    take(n + 1)
def apple():
    nested(1, banana_greenlet)
    banana_greenlet.switch()
    take(3)
def banana():
    take(4)
    apple_greenlet.switch()
    nested(5, apple_greenlet)
def main():
    global apple_greenlet, banana_greenlet
    apple_greenlet, banana_greenlet = greenlet.greenlet(apple), greenlet.greenlet(banana)
    apple_greenlet.switch()
    take(7)
    banana_greenlet.switch()
main()
"#;

#[test]
fn greenlets_have_stacks_of_their_own() {
    each_that_has_them(|python| {
        let recorded = record(python, GREENLETS);
        let p = &recorded.profile.processes[0];
        adds_up(p);
        let mut found: Vec<(u64, Vec<&str>)> = Vec::new();
        for path in p.paths.iter().filter(|path| path.domain == Domain::Malloc) {
            let names: Vec<&str> = names(p, path).iter().map(|n| n.0).collect();
            if names.get(1) == Some(&"take") && path.allocated.bytes >= 1 << 17 {
                assert_eq!(path.allocated.bytes % (1 << 17), 0);
                found.push((path.allocated.bytes >> 17, names[1..].to_vec()));
            }
        }
        found.sort();
        let wanted: [(u64, &[&str]); 7] = [
            (1, &["take", "nested", "apple"]),
            (2, &["take", "nested", "apple"]),
            (3, &["take", "apple"]),
            (4, &["take", "banana"]),
            (5, &["take", "nested", "banana"]),
            (6, &["take", "nested", "banana"]),
            (7, &["take", "main", "<module>"]),
        ];
        let found: Vec<(u64, &[&str])> = found.iter().map(|(n, names)| (*n, &names[..])).collect();
        assert_eq!(found, wanted);
    });
}
