//! A made-up profile with all that is hard about profiles: several threads and domains, two
//! processes, recursion, generators, native frames with and without symbols, names with every
//! character that a format uses for itself, a path without a stack, the same path twice.

use strandline_profile::{
    Amount, Builder, Domain, Frame, FrameKind, Meta, Module, Path, Point, Process, Profile, State,
    Thread, Timeline,
};

/// Start of the run, nanoseconds since the epoch.
pub const STARTED: u64 = 1_790_000_000_000_000_000;

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

fn path(numbers: &mut Numbers, node: u32, thread: u32, domain: Domain) -> Path {
    let blocks = 2 + numbers.below(50);
    let size = 16 + numbers.below(4096);
    let freed = numbers.below(blocks + 1);
    let amount = |blocks| Amount { blocks, bytes: blocks * size };
    Path {
        node,
        thread,
        domain,
        allocated: amount(blocks),
        freed: amount(freed),
        at_peak: amount(numbers.below(blocks)),
        at_rss_peak: amount(numbers.below(blocks)),
        temporary: amount(numbers.below(freed + 1)),
        ..Path::default()
    }
}

fn native(b: &mut Builder, function: &str, library: &str, address: u64) -> u32 {
    let (function, file) = (b.string(function), b.string(library));
    b.frame(Frame { function, file, kind: FrameKind::Native, address, ..Frame::default() })
}

fn main_process(paths: usize) -> Process {
    const DOMAINS: [Domain; 5] =
        [Domain::Object, Domain::Mem, Domain::Raw, Domain::Malloc, Domain::Mmap];
    let mut b = Builder::new();
    let mut numbers = Numbers(7);
    let module = ("<module>", "/srv/my app/app.py", 40);
    let mut nodes = vec![
        0,
        b.python_path([module]),
        b.python_path([module, ("main", "/srv/my app/app.py", 31)]),
        b.python_path([module, ("Table.<locals>.<lambda>", "/srv/my app/table.py", 7)]),
        b.python_path([module, ("rows.<genexpr>", "/srv/my app/table.py", 12)]),
        b.python_path([module, ("semi;colon, \"quoted\"", "/srv/odd;name,\"1\".py", 3)]),
        b.python_path([module, ("two\nlines\r\n\ttab", "/srv/日本語/été.py", 4)]),
        b.python_path([module, ("no_file", "", 0)]),
        b.python_path([("<module>", "/srv/other.py", 2)]),
    ];
    let walk = (0..40).map(|_| ("walk", "/srv/my app/tree.py", 18));
    nodes.push(b.python_path([module].into_iter().chain(walk)));
    for (function, library, address) in [
        ("PyArray_NewLikeArray", "/opt/numpy/_multiarray_umath.so", 0x4_1000),
        ("PyArray_NewLikeArray", "/opt/numpy/_multiarray_umath.so", 0x4_1080),
        ("std::vector<int, std::allocator<int> >::push_back", "/opt/numpy/_multiarray_umath.so", 1),
        ("", "/usr/lib/libz.so.1", 0x2345),
        ("", "", 0x7f00),
    ] {
        let frame = native(&mut b, function, library, address);
        let parent = nodes[2];
        nodes.push(b.node(parent, frame));
    }
    // Many paths: a tree as wide and deep as a server's, of 500 functions with 40 lines each.
    let functions: Vec<(String, String)> = (0..500)
        .map(|f| (format!("step_{f}"), format!("/srv/my app/handlers/part_{}.py", f % 61)))
        .collect();
    for i in 0..paths {
        let shared = (0..8).map(|d| ("dispatch", "/srv/my app/server.py", 100 + d));
        let deep = (0..8).map(|d| {
            let step = i / 7usize.pow(7 - d);
            let (function, file) = &functions[step % functions.len()];
            let line = 10 + (step / functions.len() % 40) as u32;
            (function.as_str(), file.as_str(), line)
        });
        nodes.push(b.python_path([module].into_iter().chain(shared).chain(deep)));
    }
    let library = b.string("/opt/numpy/_multiarray_umath.so");
    let process = b.process();
    process.modules.push(Module { file: library, build_id: vec![0xde, 0xad, 0xbe, 0xef] });
    for (name, tid) in [("MainThread", 4711), ("pool, \"worker\"-0", 4712), ("", 4713)] {
        process.threads.push(Thread { name: name.into(), tid, allocations: 1 });
    }
    for (i, &node) in nodes.iter().enumerate() {
        let (thread, domain) = ((i % 4) as u32, DOMAINS[i % DOMAINS.len()]);
        let path = path(&mut numbers, node, thread, domain);
        process.paths.push(path);
    }
    for (thread, domain) in [(1, Domain::Object), (1, Domain::Object), (2, Domain::Raw)] {
        let path = path(&mut numbers, nodes[2], thread, domain);
        process.paths.push(path);
    }
    process.pid = 4711;
    process.command = ["python3", "-u", "/srv/my app/app.py"].map(String::from).to_vec();
    process.python = (3, 11, 9);
    process.state = State::Exited;
    process.started = STARTED;
    process.totals.stranded_arenas = 1_234_567;
    process.totals.stranded_heap = 765_433;
    let points = (0..100).map(|i: u64| Point {
        time: i * 10_000_000,
        in_use: (50 - i.abs_diff(60).min(50)) * 100_000,
        rss: 20_000_000 + i * 10_000,
        stranded: i * 20_000,
        top: Vec::new(),
    });
    process.timeline = Timeline { interval: 10_000_000, points: points.collect() };
    b.finish()
}

fn child() -> Process {
    let mut b = Builder::new();
    let mut numbers = Numbers(11);
    let module = ("<module>", "/srv/my app/app.py", 40);
    let nodes = [
        b.python_path([module, ("main", "/srv/my app/app.py", 31)]),
        b.python_path([module, ("child", "/srv/my app/app.py", 22)]),
    ];
    let process = b.process();
    process.paths.extend(nodes.map(|node| path(&mut numbers, node, 0, Domain::Object)));
    process.pid = 4800;
    process.parent_pid = 4711;
    process.forked = true;
    process.command = ["python3", "-u", "/srv/my app/app.py"].map(String::from).to_vec();
    process.started = STARTED + 300_000_000;
    process.totals.stranded_heap = 4096;
    b.finish()
}

/// The profile, with about so many further call paths.
pub fn profile(paths: usize) -> Profile {
    Profile {
        meta: Meta {
            strandline: "0.1.0".into(),
            started: STARTED,
            written: STARTED + 1_000_000_000,
            finished: true,
            command: ["python3", "-u", "/srv/my app/app.py"].map(String::from).to_vec(),
            exit_code: Some(0),
            temporary_distance: 1,
            native: true,
            ..Meta::default()
        },
        processes: vec![main_process(paths), child()],
        doubts: vec!["One doubt.".into()],
        ..Profile::default()
    }
}
