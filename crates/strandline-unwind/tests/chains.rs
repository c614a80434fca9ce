//! Thousands of random chains of calls through C, C++ and Rust, compared with libgcc's unwinder.

mod common;

use common::truth;
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;

#[repr(C)]
struct Chain {
    table: *const Link,
    leaf: unsafe extern "C" fn(*mut Chain),
}
type Link = unsafe extern "C" fn(*mut Chain, *const u16, i64) -> i64;

/// Libraries with their functions: every set of flags in C and C++. The last one's tables hold at
/// calls only, which is all that a chain of calls needs.
const FLAGS: &[&[&str]] = &[
    &["-O0"],
    &["-O2"],
    &["-O2", "-fomit-frame-pointer"],
    &["-O2", "-fno-omit-frame-pointer"],
    &["-O3", "-march=native", "-mavx"],
    &["-Os", "-fno-omit-frame-pointer"],
    &["-O2", "-fcf-protection=full", "-Wl,-z,ibtplt"],
    &["-O1", "-fno-asynchronous-unwind-tables", "-funwind-tables"],
];

unsafe fn next(c: *mut Chain, script: *const u16, left: i64) -> i64 {
    // SAFETY: the script has `left` more elements, all of them indices into the table.
    unsafe {
        if left == 0 {
            ((*c).leaf)(c);
            return 1;
        }
        (*(*c).table.add(usize::from(*script)))(c, script.add(1), left - 1)
    }
}

unsafe extern "C" fn rust_plain(c: *mut Chain, s: *const u16, n: i64) -> i64 {
    // SAFETY: as for `next`.
    unsafe { next(c, s, n) + 1 }
}

unsafe extern "C" fn rust_sort(c: *mut Chain, s: *const u16, n: i64) -> i64 {
    let mut numbers = [4, 2, 7, 1, 9, 3, 8];
    let mut done = false;
    numbers.sort_by(|a, b| {
        if !std::mem::replace(&mut done, true) {
            // SAFETY: as for `next`.
            unsafe { next(c, s, n) };
        }
        a.cmp(b)
    });
    numbers[0]
}

unsafe extern "C" fn rust_caught(c: *mut Chain, s: *const u16, n: i64) -> i64 {
    // SAFETY: as for `next`.
    let r = std::panic::catch_unwind(|| unsafe { next(c, s, n) });
    r.map_or(0, |r| r + 1)
}

unsafe extern "C" fn rust_iterator(c: *mut Chain, s: *const u16, n: i64) -> i64 {
    let text = format!("{n}");
    // SAFETY: as for `next`.
    (0..1).map(|_| unsafe { next(c, s, n) } + text.len() as i64).sum()
}

/// The functions that chains are made of.
#[derive(Clone, Copy)]
struct Table {
    links: &'static [Link],
    /// How many of them, from the first, have tables that hold at every instruction.
    anywhere: usize,
}

fn table() -> Table {
    static TABLE: Mutex<Option<Table>> = Mutex::new(None);
    let mut table = TABLE.lock().expect("no panic before");
    if let Some(table) = *table {
        return table;
    }
    let dir = common::directory("chains");
    let mut links: Vec<Link> = vec![rust_plain, rust_sort, rust_caught, rust_iterator];
    let mut anywhere = 0;
    for (i, flags) in FLAGS.iter().enumerate() {
        anywhere = links.len();
        let other = dir.join(format!("libother{i}.so"));
        common::compile("cc", flags, &["other.c"], &other, &[]);
        for (compiler, source) in [("cc", "chain.c"), ("c++", "chain.cc")] {
            let library = dir.join(format!("libchain{i}-{compiler}.so"));
            let with: &[&std::path::Path] = if compiler == "cc" { &[&other] } else { &[] };
            common::compile(compiler, flags, &[source], &library, with);
            let handle = common::load(&library);
            let first = common::symbol(handle, "links").cast::<Link>();
            let count = common::symbol(handle, "link_count").cast::<usize>();
            // SAFETY: chain.c and chain.cc define them so.
            links.extend_from_slice(unsafe { std::slice::from_raw_parts(first, *count) });
        }
    }
    strandline_unwind::refresh();
    *table.insert(Table { links: links.leak(), anywhere })
}

thread_local! {
    static FIRST_WRONG: Cell<bool> = const { Cell::new(true) };
}

unsafe extern "C" fn leaf(_: *mut Chain) {
    if !truth::agree() && FIRST_WRONG.replace(false) {
        eprintln!("{}", truth::describe());
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn run(
    seed: u64,
    chains: usize,
    longest: u64,
    table: &[Link],
    leaf: unsafe extern "C" fn(*mut Chain),
) {
    let mut chain = Chain { table: table.as_ptr(), leaf };
    let mut seed = seed * 2 + 1;
    for _ in 0..chains {
        let length = random(&mut seed) % longest;
        let script: Vec<u16> =
            (0..length).map(|_| (random(&mut seed) % table.len() as u64) as u16).collect();
        // SAFETY: as for `next`.
        unsafe { next(&mut chain, script.as_ptr(), script.len() as i64) };
    }
}

/// Signal handlers and timers belong to the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn random_chains() {
    // One thread of control at a time: a signal's handler belongs to the whole process.
    let threads = std::thread::Builder::new().stack_size(8 << 20);
    let _alone = ALONE.lock();
    let [before, wrong, lost] =
        [&truth::CHAINS, &truth::WRONG, &truth::LOST].map(|c| c.load(Relaxed));
    threads
        .spawn(|| run(1, 4000, 24, table().links, leaf))
        .expect("a thread")
        .join()
        .expect("no panic");
    let chains = truth::CHAINS.load(Relaxed) - before;
    println!("{chains} chains, {} frames", truth::FRAMES.load(Relaxed));
    assert!(chains >= 4000);
    assert_eq!(truth::WRONG.load(Relaxed), wrong, "of {chains}");
    assert_eq!(truth::LOST.load(Relaxed), lost, "of {chains}");
}

unsafe extern "C" fn works(_: *mut Chain) {
    let mut text = String::new();
    for i in 0..50 {
        text += &format!("{i} {:?} ", i as f64 * 0.7);
    }
    std::hint::black_box(text.split(' ').map(str::len).sum::<usize>());
}

extern "C" fn on_tick(_: libc::c_int) {
    // SAFETY: saves and restores this thread's errno.
    unsafe {
        let errno = *libc::__errno_location();
        leaf(std::ptr::null_mut());
        *libc::__errno_location() = errno;
    }
}

/// A timer's signal comes anywhere: in prologues, epilogues, linkage tables, the loader, malloc.
/// Not in functions whose tables hold at calls only: nobody can unwind from their prologues, and
/// libgcc reads wherever it is led.
#[test]
fn interrupted_anywhere() {
    let _alone = ALONE.lock();
    let before = [&truth::CHAINS, &truth::WRONG, &truth::LOST].map(|c| c.load(Relaxed));
    let set = |microseconds| {
        let interval = libc::timeval { tv_sec: 0, tv_usec: microseconds };
        let timer = libc::itimerval { it_interval: interval, it_value: interval };
        // SAFETY: a timer of valid values.
        unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
    };
    let Table { links, anywhere } = table();
    // SAFETY: a handler that is safe in a signal, as long as the leaf is no other test's.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_tick as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut());
    }
    set(1000);
    let start = std::time::Instant::now();
    for seed in 2.. {
        run(seed, 50, 24, &links[..anywhere], works);
        let ticks = truth::CHAINS.load(Relaxed) - before[0];
        if ticks >= 500 || start.elapsed().as_secs() > 60 {
            break;
        }
    }
    set(0);
    let now = [&truth::CHAINS, &truth::WRONG, &truth::LOST].map(|c| c.load(Relaxed));
    println!("{} ticks", now[0] - before[0]);
    assert!(now[0] - before[0] >= 50);
    assert_eq!(now[1..], before[1..]);
}
