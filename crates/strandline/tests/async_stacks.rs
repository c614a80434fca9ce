//! `run --stacks --async-stacks`: call paths go on through the asyncio tasks that await the one
//! that runs.

mod common;

use common::recorded::*;
use common::*;
use strandline_profile::{Amount, FrameKind, Path, Process, Weight};

/// Every kind of awaiting, each with blocks of a size of its own: N of `CASE(n)` is in the path
/// under its name.
const CASES: &str = r#"
import asyncio, sys
kept = []
task_of = asyncio.ensure_future

def block(n):
    kept.append(bytearray(n))

async def leaf(n):
    await asyncio.sleep(0)
    block(n)

async def awaits(n):
    await task_of(leaf(n))

async def nests(n, depth=5):
    if depth:
        await task_of(nests(n, depth - 1))
    else:
        await leaf(n)

async def gathers(n):
    await asyncio.gather(leaf(n), leaf(n))

async def waits_for(n):
    await asyncio.wait_for(leaf(n), 600)

async def shields(n):
    await asyncio.shield(leaf(n))

async def waits(n):
    await asyncio.wait([task_of(leaf(n))])

def deep(n, depth):
    return deep(n, depth - 1) if depth else block(n)

async def calls_deep(n):
    await asyncio.sleep(0)
    deep(n, 10)

async def awaits_deep(n):
    await task_of(calls_deep(n))

async def generates(n):
    await task_of(leaf(n))
    yield

async def iterates(n):
    async for _ in generates(n):
        pass

async def is_cancelled(n):
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        block(n)
        raise

async def cancels(n):
    task = task_of(is_cancelled(n))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass

async def nobody_awaits(n):
    task = task_of(leaf(n))
    while not task.done():
        await asyncio.sleep(0)

async def is_second(task):
    await task

async def is_first(task, n):
    await task

async def several(n):
    task = task_of(leaf(n))
    first = task_of(is_first(task, n))
    second = task_of(is_second(task))
    await asyncio.gather(first, second)

async def has_callbacks(n):
    task = task_of(leaf(n))
    task.add_done_callback(lambda task: None)
    task.add_done_callback(kept.append)
    await task

class Derived(asyncio.Task):
    pass

async def derives(n):
    loop = asyncio.get_event_loop()
    await Derived(leaf(n), loop=loop)

async def within(n):
    task = task_of(leaf(n))
    await task
    await asyncio.gather(task_of(awaits(n)), leaf(1))

async def groups(n):
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(n))

async def sets(event, n):
    block(n)
    event.set()

async def in_group(n):
    event = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(sets(event, n))
        await event.wait()

async def main():
    await awaits(100000)
    await nests(110000)
    await gathers(120000)
    await waits_for(130000)
    await shields(140000)
    await waits(150000)
    await awaits_deep(160000)
    await iterates(170000)
    await cancels(180000)
    await nobody_awaits(190000)
    await several(200000)
    await has_callbacks(210000)
    await derives(220000)
    await within(230000)
    if sys.version_info >= (3, 11):
        await groups(240000)
        await in_group(250000)

def start():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    loop.close()

start()
print(len(kept))
"#;

/// Functions of asyncio's Python code that are on the way where its C code isn't used.
const STEPS: [&str; 8] = [
    "__await__",
    "__iter__",
    "__step",
    "_step",
    "__step_run_and_handle_result",
    "__wakeup",
    "_wakeup",
    "_aexit",
];

const CUT: &str = "(tasks that await this one, which could not be read)";

/// The functions of all paths under which a block of `n` bytes was made, innermost first, as far as
/// the loop or `main`; with each how many blocks.
fn paths_to(p: &Process, n: usize) -> Vec<(Vec<&str>, u64)> {
    let class = strandline_capture::layout::size_class(n);
    let is = |path: &&Path| {
        let of_class = path.sizes.get(class).copied().unwrap_or(0);
        of_class > 0 && names(p, path).first().is_some_and(|n| n.0 == "block") && {
            // Size classes are wide: what one asks for is told by its average.
            let each = path.allocated.bytes / u64::from(of_class);
            (n as u64..n as u64 + 3000).contains(&each)
        }
    };
    let to = |path: &Path| {
        let all = names(p, path).into_iter().map(|n| n.0);
        let short = all.filter(|name| !STEPS.contains(name));
        let count = u64::from(path.sizes.get(class).copied().unwrap_or(0));
        (short.take_while(|name| *name != "_run_once").collect(), count)
    };
    let mut found: Vec<(Vec<&str>, u64)> = Vec::new();
    for (path, count) in p.paths.iter().filter(is).map(to) {
        match found.iter_mut().find(|(known, _)| *known == path) {
            Some((_, sum)) => *sum += count,
            None => found.push((path, count)),
        }
    }
    found.sort();
    found
}

fn check_cases(python: &Python, source: &str) {
    let recorded = record_with(python, source, &["--async-stacks"]);
    assert_eq!(recorded.ran.code, Some(0), "{}", recorded.ran.stderr);
    assert!(recorded.profile.doubts.is_empty(), "{:?}", recorded.profile.doubts);
    assert!(recorded.profile.meta.async_stacks);
    let p = &recorded.profile.processes[0];
    adds_up(p);
    let is = |n: usize, wanted: &[(&[&str], u64)]| {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(path, count)| {
                let ends = [&["block"], *path, &["_run"]].concat();
                (ends, *count)
            })
            .collect();
        assert_eq!(paths_to(p, n), wanted, "{n}");
    };
    is(100_000, &[(&["leaf", "awaits", "main"], 1)]);
    is(110_000, &[(&["leaf", "nests", "nests", "nests", "nests", "nests", "nests", "main"], 1)]);
    is(120_000, &[(&["leaf", "gathers", "main"], 2)]);
    is(130_000, &[(&["leaf", "wait_for", "waits_for", "main"], 1)]);
    is(140_000, &[(&["leaf", "shields", "main"], 1)]);
    is(150_000, &[(&["leaf", "_wait", "wait", "waits", "main"], 1)]);
    let mut deep = vec!["deep"; 10];
    deep.extend(["deep", "calls_deep", "awaits_deep", "main"]);
    is(160_000, &[(&deep, 1)]);
    is(170_000, &[(&["leaf", "generates", "iterates", "main"], 1)]);
    is(180_000, &[(&["is_cancelled", "cancels", "main"], 1)]);
    is(190_000, &[(&["leaf"], 1)]);
    is(200_000, &[(&["leaf", "is_first", "several", "main"], 1)]);
    is(210_000, &[(&["leaf", "has_callbacks", "main"], 1)]);
    is(220_000, &[(&["leaf", "derives", "main"], 1)]);
    is(230_000, &[(&["leaf", "awaits", "within", "main"], 1), (&["leaf", "within", "main"], 1)]);
    if python.version >= (3, 11) {
        is(240_000, &[(&["leaf", "__aexit__", "groups", "main"], 1)]);
        is(250_000, &[(&["sets", "wait", "in_group", "main"], 1)]);
    }
    let cut = p.paths.iter().filter(|path| names(p, path).iter().any(|n| n.0 == CUT));
    assert_eq!(cut.count(), 0);
    // From the caller of the loop on everything is as ever.
    let all = p.paths.iter().map(|path| names(p, path));
    let found = all.into_iter().find(|names| names.iter().any(|n| n.0 == "awaits_deep"));
    let found: Vec<_> = found.unwrap().into_iter().map(|n| n.0).collect();
    assert!(found.ends_with(&["run_until_complete", "start", "<module>"]), "{found:?}");
}

#[test]
fn every_kind_of_awaiting() {
    each_of(|version| version >= (3, 6), |python| check_cases(python, CASES));
}

#[test]
fn tasks_of_python_code() {
    let source = format!("import sys\nsys.modules['_asyncio'] = None\n{CASES}");
    each_of(|version| version >= (3, 6), |python| check_cases(python, &source));
}

/// The line of `CASES` with this text, counted from 1.
fn line_of(text: &str) -> u32 {
    let found = CASES.lines().position(|line| line.trim() == text);
    found.unwrap_or_else(|| panic!("{text}")) as u32 + 1
}

#[test]
fn awaiting_functions_are_at_their_await() {
    each_of(
        |version| version >= (3, 6),
        |python| {
            let recorded = record_with(python, CASES, &["--async-stacks"]);
            let p = &recorded.profile.processes[0];
            let all = p.paths.iter().map(|path| names(p, path));
            let wanted = [
                ("awaits", line_of("await task_of(leaf(n))")),
                ("main", line_of("await awaits(100000)")),
            ];
            let mut found = all.filter(|names| names.len() > 4 && names[2..4] == wanted);
            assert!(found.any(|names| names[0].0 == "block" && names[1].0 == "leaf"));
        },
    );
}

#[test]
fn without_the_option_paths_end_at_the_loop() {
    each_of(
        |version| version >= (3, 6),
        |python| {
            let recorded = record(python, CASES);
            assert!(!recorded.profile.meta.async_stacks);
            let p = &recorded.profile.processes[0];
            let at_loop = under(p, &["block", "leaf", "_run"], Weight::Allocated).bytes;
            let wanted = 100_000 + 2 * 120_000 + 140_000 + 150_000 + 170_000 + 190_000;
            assert!(at_loop > wanted, "{at_loop}");
            assert_eq!(
                under(p, &["block", "leaf", "awaits"], Weight::Allocated),
                Amount::default()
            );
        },
    );
}

#[test]
fn with_native_functions() {
    each_of(
        |version| version >= (3, 6),
        |python| {
            let recorded = record_with(python, CASES, &["--async-stacks", "--native"]);
            assert_eq!(recorded.ran.code, Some(0), "{}", recorded.ran.stderr);
            let p = &recorded.profile.processes[0];
            adds_up(p);
            let mut natives = 0;
            let paths: Vec<Vec<&str>> = p
                .paths
                .iter()
                .map(|path| {
                    let mut calls = Vec::new();
                    let mut node = path.node as usize;
                    while node != 0 {
                        let frame = p.frames[p.nodes[node].frame as usize];
                        if frame.kind == FrameKind::Python {
                            let name = p.strings[frame.function as usize].as_str();
                            calls.push(name.rsplit('.').next().unwrap());
                        } else {
                            natives += 1;
                        }
                        node = p.nodes[node].parent as usize;
                    }
                    calls
                })
                .collect();
            assert!(natives > 0);
            let is = |wanted: &[&str]| paths.iter().any(|path| path.starts_with(wanted));
            assert!(is(&["block", "leaf", "awaits", "main", "_run", "_run_once"]));
            assert!(is(&["block", "leaf", "gathers", "main", "_run", "_run_once"]));
        },
    );
}

#[test]
fn loops_in_two_threads() {
    let source = r#"
import asyncio, threading
kept = []
def block(n):
    kept.append(bytearray(n))
async def leaf(n):
    await asyncio.sleep(0)
    block(n)
async def one():
    for _ in range(40):
        await asyncio.ensure_future(leaf(100000))
async def two():
    for _ in range(40):
        await asyncio.gather(leaf(200000), leaf(200000))
both = threading.Barrier(2)
def work(main):
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    both.wait()
    loop.run_until_complete(main())
    loop.close()
threads = [threading.Thread(target=work, args=[f], name=f.__name__) for f in (one, two)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;
    each_of(
        |version| version >= (3, 6),
        |python| {
            let recorded = record_with(python, source, &["--async-stacks"]);
            assert_eq!(recorded.ran.code, Some(0), "{}", recorded.ran.stderr);
            let p = &recorded.profile.processes[0];
            adds_up(p);
            assert_eq!(paths_to(p, 100_000), [(vec!["block", "leaf", "one", "_run"], 40)]);
            assert_eq!(paths_to(p, 200_000), [(vec!["block", "leaf", "two", "_run"], 80)]);
            for path in &p.paths {
                let thread = p.threads[path.thread as usize].name.as_str();
                let names = names(p, path);
                let other = if thread == "one" { "two" } else { "one" };
                let inside = names.iter().any(|n| n.0 == "leaf");
                assert!(!inside || !names.iter().any(|n| n.0 == other), "{thread}: {names:?}");
            }
        },
    );
}

#[test]
fn what_can_not_be_read_is_marked() {
    let source = r#"
import asyncio, ctypes
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
kept = []
task_of = asyncio.ensure_future
def block(n):
    kept.append(bytearray(n))
async def leaf(n):
    await asyncio.sleep(0)
    block(n)
async def without_lock():
    await asyncio.sleep(0)
    malloc(123456)
async def many_callbacks(n):
    task = task_of(leaf(n))
    for _ in range(200):
        task.add_done_callback(lambda task: None)
    await task
async def adds(tasks):
    await asyncio.sleep(0)
    for _ in range(30000):
        tasks[0].add_done_callback(lambda task: None)
async def many_more():
    tasks = []
    tasks.append(task_of(adds(tasks)))
    await tasks[0]
async def nests(n, depth):
    if depth:
        await task_of(nests(n, depth - 1))
    else:
        block(n)
async def main():
    await task_of(without_lock())
    await many_callbacks(200000)
    await many_more()
    await nests(300000, 700)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(main())
loop.close()
print(len(kept))
"#;
    each_of(
        |version| version >= (3, 6),
        |python| {
            let recorded = record_with(python, source, &["--async-stacks"]);
            assert_eq!(recorded.ran.code, Some(0), "{}", recorded.ran.stderr);
            assert_eq!(recorded.ran.stdout, "2\n");
            let p = &recorded.profile.processes[0];
            adds_up(p);
            let malloc = p.paths.iter().filter(|path| path.in_use().bytes == 123_456);
            let found: Vec<Vec<&str>> = malloc
                .map(|path| names(p, path).into_iter().map(|n| n.0).take(3).collect())
                .collect();
            assert_eq!(found, [["without_lock", CUT, "_run"]]);
            assert_eq!(paths_to(p, 200_000), [(vec!["block", "leaf", CUT, "_run"], 1)]);
            let long = paths_to(p, 300_000);
            let [(long, 1)] = &long[..] else { panic!("{long:?}") };
            assert_eq!(long.iter().filter(|name| **name == "nests").count(), 513);
            assert!(long.ends_with(&["nests", CUT, "_run"]));
        },
    );
}

#[test]
fn a_python_that_is_not_known_is_named() {
    each_of(
        |version| version < (3, 6),
        |python| {
            let recorded = record_with(python, "kept = [bytearray(100000)]", &["--async-stacks"]);
            assert_eq!(recorded.ran.code, Some(0), "{}", recorded.ran.stderr);
            let doubts = &recorded.profile.doubts;
            assert!(matches!(&doubts[..], [one] if one.contains("asyncio")), "{doubts:?}");
            adds_up(&recorded.profile.processes[0]);
        },
    );
}
