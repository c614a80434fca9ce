//! Whatever kind of function it is, each line gets what happened while it ran: generators,
//! coroutines, recursion, threads, exceptions, methods in any decorator order, code without a
//! file.

mod common;

use common::*;

/// Runs `source` as a script with every interpreter from `first` on.
fn scripts_since(first: (u32, u32), source: &str, check: impl Fn(&Python, &Report)) {
    each_of(
        |version| version >= first,
        |python| check(python, &Job::script(python, source).report().1),
    );
}

fn scripts(source: &str, check: impl Fn(&Python, &Report)) {
    scripts_since((2, 7), source, check);
}

/// `count` objects of `size` bytes each.
fn blocks(python: &Python, count: i64, size: i64) -> i64 {
    count * (size + python.bytes_header as i64)
}

#[test]
fn generators() {
    let source = r#"
@profile
def gen(n):
    a = b"x" * n                  # first
    yield                         # suspend
    b = b"x" * n                  # second
    yield
    del a, b                      # gone

@profile
def consume(n):
    g, h = gen(n), gen(2 * n)     # make
    next(g)                       # g1
    next(h)                       # h1
    next(g)                       # g2
    other = b"x" * n              # own
    next(h)                       # h2
    for _ in g: pass              # g3
    for _ in h: pass              # h3

consume(100000)
"#;
    scripts(source, |python, report| {
        let n = |count, size| blocks(python, count, size);
        let both = n(1, 100_000) + n(1, 200_000);
        assert_eq!(report.moved("first"), (both, 0));
        assert_eq!(report.moved("second"), (both, 0));
        assert_eq!(report.moved("gone"), (0, 2 * both));
        assert_eq!(report.moved("own"), (n(1, 100_000), 0));
        let (allocated, freed) = report.moved("suspend");
        assert!(allocated < 200 && freed < 200, "charged while suspended: {allocated} {freed}");
        for (tag, size) in [("g1", 100_000), ("h1", 200_000), ("g2", 100_000), ("h2", 200_000)] {
            let (allocated, _) = report.moved(tag);
            assert!((n(1, size)..n(1, size) + 600).contains(&allocated), "{tag}: {allocated}");
        }
        let (_, freed) = report.moved("g3");
        assert!((n(2, 100_000)..n(2, 100_000) + 2000).contains(&freed), "{freed}");
    });
}

/// Two tasks that take turns in the middle of their lines.
#[test]
fn coroutines() {
    let source = r#"
import types

@types.coroutine
def pause():
    yield

@profile
async def task(n):
    a = b"x" * n                  # first
    await pause()                 # pause
    b = b"x" * n                  # second
    await pause()
    del a, b                      # gone

def run(tasks):
    while tasks:
        for t in list(tasks):
            try:
                t.send(None)
            except StopIteration:
                tasks.remove(t)

run([task(100000), task(200000), task(300000)])
"#;
    scripts_since((3, 6), source, |python, report| {
        let sum: i64 = [100_000, 200_000, 300_000].iter().map(|n| blocks(python, 1, *n)).sum();
        assert_eq!(report.moved("first"), (sum, 0));
        assert_eq!(report.moved("second"), (sum, 0));
        assert_eq!(report.moved("gone"), (0, 2 * sum));
        assert_eq!(report.at("first", "occurrences"), 3);
        let (allocated, freed) = report.moved("pause");
        assert!(allocated < 3000 && freed < 3000, "charged for others: {allocated} {freed}");
    });
}

#[test]
fn asyncio_and_async_generators() {
    let source = r#"
import asyncio

@profile
async def numbers(n):
    for i in (1, 2, 3):
        a = b"x" * n              # made
        await asyncio.sleep(0)    # sleep
        yield i                   # out

@profile
async def read(n):
    async for i in numbers(n):    # loop
        b = b"x" * (5 * n)        # body
        await asyncio.sleep(0.001)
    return i

async def main():
    await asyncio.gather(read(100000), read(200000))

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
"#;
    scripts_since((3, 6), source, |python, report| {
        let each: i64 = [100_000, 200_000].iter().map(|n| blocks(python, 3, *n)).sum();
        assert_eq!(report.at("made", "allocated_bytes"), each);
        let five: i64 = [500_000, 1_000_000].iter().map(|n| blocks(python, 3, *n)).sum();
        let body = report.at("body", "allocated_bytes");
        // The product is an int of its own, each time.
        assert!((five..=five + 6 * 32).contains(&body), "{body}, {five}");
        let (out, _) = report.moved("out");
        assert!(out < 3000, "charged while suspended: {out}");
        let (looped, _) = report.moved("loop");
        assert!((each..each + 30_000).contains(&looped), "{looped}, {each}");
    });
}

#[test]
fn recursion_counts_once() {
    let source = r#"
@profile
def dive(depth, n):
    x = b"x" * n                  # own
    if depth:
        dive(depth - 1, n)        # deeper
    y = b"x" * n                  # after
    del y

@profile
def outside(n):
    dive(9, n)                    # all

outside(50000)
"#;
    scripts(source, |python, report| {
        let one = blocks(python, 1, 50_000);
        assert_eq!(report.at("own", "allocated_bytes"), 10 * one);
        assert_eq!(report.at("own", "occurrences"), 10);
        assert_eq!(report.at("after", "allocated_bytes"), 10 * one);
        let (allocated, freed) = report.moved("deeper");
        assert!((18 * one..18 * one + 8000).contains(&allocated), "{allocated}, {}", 18 * one);
        assert!((18 * one..18 * one + 8000).contains(&freed), "{freed}, {}", 18 * one);
        let (allocated, freed) = report.moved("all");
        assert!((20 * one..20 * one + 8000).contains(&allocated), "{allocated}, {}", 20 * one);
        assert!((20 * one..20 * one + 8000).contains(&freed), "{freed}, {}", 20 * one);
        let peak = report.at("all", "peak_bytes");
        assert!((11 * one..11 * one + 8000).contains(&peak), "{peak}, {}", 11 * one);
    });
}

#[test]
fn threads_add_up() {
    let source = r#"
import threading

@profile
def work(rounds, n):
    for _ in rounds:
        a = b"x" * n              # made
        b = a + a                 # twice
        del a                     # gone
        del b                     # gone2

@profile
def start():
    threads = [threading.Thread(target=work, args=([None] * 300, 5000)) for _ in range(8)]
    for t in threads: t.start()   # start
    for t in threads: t.join()    # join

work([None], 10)
start()
"#;
    scripts(source, |python, report| {
        let n = |count, size| blocks(python, count, size);
        assert_eq!(report.at("made", "occurrences"), 2401);
        assert_eq!(report.moved("made"), (n(2400, 5000) + n(1, 10), 0));
        assert_eq!(report.moved("twice"), (n(2400, 10_000) + n(1, 20), 0));
        assert_eq!(report.moved("gone"), (0, n(2400, 5000) + n(1, 10)));
        assert_eq!(report.moved("gone2"), (0, n(2400, 10_000) + n(1, 20)));
        for tag in ["start", "join"] {
            let (allocated, _) = report.moved(tag);
            assert!(allocated < 100_000, "{tag} was charged for other threads: {allocated}");
        }
        assert_eq!(report.at("made", "in_use_bytes"), 0);
    });
}

#[test]
fn exceptions() {
    let source = r#"
@profile
def fails(n):
    a = b"x" * n                  # made
    raise KeyError(n)             # raise
    b = b"never"                  # never

@profile
def catches(n):
    try:
        fails(n)                  # try
    except KeyError:              # except
        c = b"x" * n              # caught
    del c                         # gone
    d = b"x" * n                  # after

def deep(n):
    fails(n)

catches(100000)
try:
    deep(100000)
except KeyError:
    pass
catches(100000)
"#;
    scripts(source, |python, report| {
        let one = blocks(python, 1, 100_000);
        assert_eq!(report.moved("made"), (3 * one, 0));
        assert_eq!(report.at("raise", "occurrences"), 3);
        assert!(report.tagged("never")["occurrences"].is_null());
        assert_eq!(report.at("caught", "allocated_bytes"), 2 * one);
        assert_eq!(report.moved("gone"), (0, 2 * one));
        let (allocated, freed) = report.moved("after");
        if python.version == (2, 7) {
            // 2.7 keeps the exception, with the frames of its traceback, until the function ends.
            assert!((2 * one..2 * one + 600).contains(&allocated), "{allocated}");
            assert!((2 * one..2 * one + 2000).contains(&freed), "{freed}");
        } else {
            assert_eq!((allocated, freed), (2 * one, 0));
        }
        let (allocated, _) = report.moved("try");
        assert!((2 * one..2 * one + 4000).contains(&allocated), "{allocated}");
        assert_eq!(report.at("made", "in_use_bytes"), 0);
    });
}

#[test]
fn methods_in_any_decorator_order() {
    let source = r#"
N = 100000
class Base(object):
    @profile
    @staticmethod
    def static1():
        return b"x" * N           # s1

    @staticmethod
    @profile
    def static2():
        return b"x" * N           # s2

    @profile
    @classmethod
    def class1(cls):
        return b"x" * N           # c1

    @classmethod
    @profile
    def class2(cls):
        return b"x" * N           # c2

    @profile
    @property
    def property1(self):
        return b"x" * N           # p1

    @property
    @profile
    def property2(self):
        return b"x" * N           # p2

    @property2.setter
    @profile
    def property2(self, value):
        self.value = b"x" * value  # set

    @profile
    def method(self):
        return b"x" * N           # m

b = Base()
for _ in "ab":
    for f in (Base.static1, Base.static2, b.static1, Base.class1, b.class2, b.method):
        f()
    b.property1, b.property2
    b.property2 = N
"#;
    scripts(source, |python, report| {
        let one = blocks(python, 1, 100_000);
        let calls = [("s1", 4), ("s2", 2), ("c1", 2), ("c2", 2), ("p1", 2), ("p2", 2), ("m", 2)];
        for (tag, count) in calls {
            assert_eq!(report.at(tag, "allocated_bytes"), count * one, "{tag}");
            assert_eq!(report.at(tag, "in_use_bytes"), 0, "{tag}");
        }
        // The first value and the attribute's dict stay.
        let (allocated, freed) = report.moved("set");
        assert!((2 * one..2 * one + 600).contains(&allocated), "{allocated}");
        assert!((one..one + 600).contains(&freed), "{freed}");
    });
}

#[test]
fn lambdas_and_nested_functions() {
    let source = r#"
N = 100000
f = profile(lambda n: b"x" * n)   # lambda

@profile
def outer(n):
    def inner(m):
        return b"x" * m           # inner
    a = inner(n)                  # call
    return [b"x" * n for _ in (1, 2, 3)]   # comprehension

f(N), f(N)
outer(N)
"#;
    scripts(source, |python, report| {
        let one = blocks(python, 1, 100_000);
        let lambda = report.function("<lambda>");
        let line = &lambda["lines"].as_array().unwrap()[0];
        assert_eq!(number(line, "allocated_bytes"), 2 * one);
        assert_eq!(number(line, "in_use_bytes"), 0);
        assert_eq!(report.at("inner", "allocated_bytes"), one);
        let (allocated, _) = report.moved("call");
        assert!((one..one + 1000).contains(&allocated), "{allocated}");
        let (allocated, _) = report.moved("comprehension");
        assert!((3 * one..3 * one + 2000).contains(&allocated), "{allocated}");
    });
}

#[test]
fn code_without_a_file() {
    let source = r#"
text = '''
@profile
def dynamic(n):
    a = b"x" * n
    return a
'''
names = {"profile": profile, "__name__": "made"}
exec(compile(text, "<made>", "exec"), names)
names["dynamic"](100000)
"#;
    scripts(source, |python, report| {
        let function = report.function("dynamic");
        assert_eq!(function["file"], "<made>");
        let lines = function["lines"].as_array().unwrap();
        let line = lines.iter().find(|l| l["line"] == 4).unwrap();
        assert_eq!(number(line, "allocated_bytes"), blocks(python, 1, 100_000));
        assert!(line["source"].is_null(), "{line}");
    });
}

#[test]
fn zipped_modules_show_their_source() {
    let source = r#"
import sys, zipfile
with zipfile.ZipFile("lib.zip", "w") as z:
    z.writestr("inzip.py", '@profile\ndef zipped(n):\n    return b"x" * n  # zip\n')
sys.path.insert(0, "lib.zip")
import inzip
inzip.zipped(100000)
"#;
    scripts(source, |python, report| {
        assert_eq!(report.at("zip", "allocated_bytes"), blocks(python, 1, 100_000));
        let file = report.function("zipped")["file"].as_str().unwrap();
        assert!(file.ends_with("lib.zip/inzip.py"), "{file}");
    });
}

#[test]
fn command_line_code_shows_its_source() {
    each(|python| {
        let code = "@profile\ndef direct(n):\n    return b'x' * n  # direct\ndirect(100000)\n";
        let (_, report) = Job::new(python).program(["-c", code]).report();
        assert_eq!(report.at("direct", "allocated_bytes"), blocks(python, 1, 100_000));
    });
}
