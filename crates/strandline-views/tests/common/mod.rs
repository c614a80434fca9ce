//! Profiles as runs make them, by hand.

use strandline_profile::*;

pub const MIB: u64 = 1 << 20;

/// Nanoseconds since the epoch.
const START: u64 = 1_777_816_931_000_000_000;

pub fn amount(bytes: u64, blocks: u64) -> Amount {
    Amount { bytes, blocks }
}

/// A path of which all that is left at the end was there at the peak.
fn path(node: u32, thread: u32, domain: Domain, allocated: Amount, peak: u64, left: u64) -> Path {
    let blocks = |bytes: u64| match bytes {
        0 => 0,
        _ => (allocated.blocks * bytes).div_ceil(allocated.bytes.max(1)),
    };
    let in_use = amount(left, blocks(left));
    let freed = allocated.minus(in_use);
    let size = allocated.bytes / allocated.blocks.max(1);
    let class = (0..SIZE_CLASSES - 1).find(|&i| size <= 16 << i).unwrap_or(SIZE_CLASSES - 1);
    let mut sizes = vec![0; class + 1];
    sizes[class] = allocated.blocks as u32;
    Path {
        node,
        thread,
        domain,
        allocated,
        inherited: Amount::default(),
        freed,
        at_peak: amount(peak, blocks(peak)),
        at_rss_peak: amount(peak / 2, blocks(peak / 2)),
        temporary: if left == 0 { freed } else { Amount::default() },
        sizes,
        lifetimes: vec![freed.blocks as u32 / 2, 0, (freed.blocks - freed.blocks / 2) as u32],
    }
}

fn finish(mut builder: Builder, pid: u32) -> Process {
    let process = builder.process();
    let sum = |of: fn(&Path) -> u64| process.paths.iter().map(of).sum::<u64>();
    let (peak, in_use) = (sum(|p| p.at_peak.bytes), sum(|p| p.in_use().bytes));
    process.pid = pid;
    process.python = (3, 13, 1);
    process.state = State::Exited;
    process.started = START;
    process.totals = Totals {
        in_use,
        peak,
        rss: in_use + 31 * MIB,
        rss_peak: peak + 12 * MIB,
        stranded_arenas: 12 * MIB,
        stranded_heap: 3 * MIB + MIB / 4,
        overflowed: 0,
    };
    builder.finish()
}

/// The main process of a small server.
pub fn server() -> Process {
    let mut b = Builder::new();
    let outer = [("<module>", "/srv/shop/server.py", 88), ("main", "/srv/shop/server.py", 71)];
    let load = ("Cache.load", "/srv/shop/cache.py", 7);
    let json = [
        ("load", "/usr/lib/python3.13/json/__init__.py", 293),
        ("JSONDecoder.decode", "/usr/lib/python3.13/json/decoder.py", 345),
        ("JSONDecoder.raw_decode", "/usr/lib/python3.13/json/decoder.py", 361),
    ];
    let of = |b: &mut Builder, rest: &[(&str, &str, u32)]| {
        let all: Vec<_> = outer.iter().chain(rest).copied().collect();
        b.python_path(all)
    };
    let decode = of(&mut b, &[&[load][..], &json].concat());
    let index = of(&mut b, &[("Cache.load", "/srv/shop/cache.py", 8)]);
    let lines = of(&mut b, &[("Cache.load", "/srv/shop/cache.py", 9)]);
    let imports = b.python_path([
        ("<module>", "/srv/shop/server.py", 3),
        ("_find_and_load", "<frozen importlib._bootstrap>", 1360),
        ("_load_unlocked", "<frozen importlib._bootstrap>", 935),
        ("exec_module", "<frozen importlib._bootstrap_external>", 1026),
        ("<module>", "/srv/shop/.venv/lib/python3.13/site-packages/a_package_with_a_very_long_name/internals/implementation_details.py", 12),
    ]);
    let walks: Vec<u32> = (1..=6)
        .map(|depth| {
            let calls = vec![("walk", "/srv/shop/tree.py", 14); depth];
            let last = [("walk", "/srv/shop/tree.py", 16)];
            of(&mut b, &[&[("render", "/srv/shop/tree.py", 30)][..], &calls, &last].concat())
        })
        .collect();
    let thread = b.python_path([
        ("Thread._bootstrap", "/usr/lib/python3.13/threading.py", 1014),
        ("Thread.run", "/usr/lib/python3.13/threading.py", 994),
        ("fetch", "/srv/shop/fetch.py", 21),
    ]);
    let library =
        b.string("/srv/shop/.venv/lib/python3.13/site-packages/numpy/_core/_multiarray_umath.so");
    let symbol = b.string("PyDataMem_UserNEW");
    let native = |function, address| Frame {
        function,
        file: library,
        kind: FrameKind::Native,
        address,
        ..Frame::default()
    };
    let unnamed = b.frame(native(0, 0x1f_3a40));
    let named = b.frame(native(symbol, 0x22_0010));
    let array = b.node(lines, unnamed);
    let array = b.node(array, named);

    let process = b.process();
    let name = |name: &str, tid, allocations| Thread { name: name.into(), tid, allocations };
    process.threads.push(name("MainThread", 4711, 1_204_771));
    process.threads.push(name("loader-0", 4713, 40_000));
    process.command = ["python3", "server.py", "--port", "8080"].map(str::to_owned).to_vec();
    use Domain::*;
    let half = MIB / 2;
    let paths = &mut process.paths;
    paths.push(path(decode, 1, Object, amount(230 * MIB, 1_000_000), 201 * MIB + half, 0));
    paths.push(path(decode, 1, Mem, amount(40 * MIB, 1_200), 20 * MIB, 4 * MIB));
    paths.push(path(index, 1, Mem, amount(60 * MIB, 24), 40 * MIB, 40 * MIB));
    paths.push(path(index, 1, Object, amount(30 * MIB, 900_000), 28 * MIB, 28 * MIB));
    paths.push(path(array, 1, Malloc, amount(64 * MIB, 2), 32 * MIB, 0));
    paths.push(path(imports, 1, Object, amount(9 * MIB, 120_000), 6 * MIB, 6 * MIB));
    for (i, &walk) in walks.iter().enumerate() {
        let n = i as u64 + 1;
        paths.push(path(walk, 1, Object, amount(n * MIB, n * 9_000), n * MIB / 4, 0));
    }
    paths.push(path(thread, 2, Malloc, amount(900 * MIB, 40_000), 5 * MIB, MIB));
    paths.push(path(0, 0, Raw, amount(3 * MIB, 7_000), 2 * MIB, 2 * MIB));
    finish(b, 4711)
}

/// A forked child of it: what it had from its parent, and a little of its own.
pub fn worker() -> Process {
    let mut b = Builder::new();
    let index = b.python_path([
        ("<module>", "/srv/shop/server.py", 88),
        ("main", "/srv/shop/server.py", 71),
        ("Cache.load", "/srv/shop/cache.py", 8),
    ]);
    let job = b
        .python_path([("<module>", "/srv/shop/server.py", 90), ("work", "/srv/shop/worker.py", 5)]);
    let process = b.process();
    process.threads.push(Thread { name: "MainThread".into(), tid: 4720, allocations: 55 });
    process.parent_pid = 4711;
    process.forked = true;
    process.command = ["python3", "server.py", "--port", "8080"].map(str::to_owned).to_vec();
    process.paths.push(path(index, 1, Domain::Mem, amount(40 * MIB, 16), 40 * MIB, 40 * MIB));
    process.paths.push(path(job, 1, Domain::Object, amount(17 * MIB, 300_000), 11 * MIB, 10 * MIB));
    let mut worker = finish(b, 4720);
    worker.totals.overflowed = 3;
    worker
}

/// A run of these processes.
pub fn run_of(processes: Vec<Process>) -> Profile {
    Profile {
        meta: Meta {
            strandline: "0.1.0".into(),
            started: START,
            written: START + 192_400_000_000,
            finished: true,
            command: ["python3", "server.py", "--port", "8080"].map(str::to_owned).to_vec(),
            exit_code: Some(0),
            temporary_distance: 1,
            native: true,
            ..Meta::default()
        },
        processes,
        types: vec![types(&[("dict", 20 * MIB, 3000), ("str", 5 * MIB, 80_000), ("list", MIB, 9)])],
        ..Profile::default()
    }
}

/// What types of objects the first process had in use.
fn types(rows: &[(&str, u64, u64)]) -> Types {
    let row = |&(name, bytes, blocks): &(&str, u64, u64)| TypeRow {
        name: name.to_owned(),
        in_use: amount(bytes, blocks),
    };
    Types { pid: server().pid, rows: rows.iter().map(row).collect() }
}

/// As [`server`], later: it caches more, and the tree is drawn by another function.
pub fn later() -> Profile {
    let mut process = server();
    for path in &mut process.paths {
        if path.domain == Domain::Mem {
            path.allocated = path.allocated.plus(amount(24 * MIB, 30));
        }
    }
    for text in &mut process.strings {
        if text == "render" {
            *text = "draw".into();
        }
    }
    process.paths.retain(|path| path.thread != 2);
    let mut profile = run_of(vec![process]);
    profile.types =
        vec![types(&[("dict", 44 * MIB, 3030), ("str", 5 * MIB, 80_000), ("shop.Cart", 2048, 2)])];
    profile.meta.started += 86_400_000_000_000;
    profile.meta.written += 86_400_000_000_000;
    profile
}
