//! A made-up program: a server with workers, recursion and deep stacks.

use strandline_profile::{
    Amount, Builder, Domain, Meta, Path, Point, Process, Profile, State, Thread, Timeline,
};

const PACKAGES: [&str; 8] =
    ["pandas/core", "numpy/lib", "requests", "sqlalchemy/orm", "django/db", "celery", "c", "yaml"];
const VERBS: [&str; 12] = [
    "load", "parse", "build", "merge", "read", "copy", "resolve", "encode", "fetch", "apply",
    "walk", "emit",
];
const NOUNS: [&str; 9] =
    ["frame", "rows", "index", "tree", "block", "response", "batch", "schema", "tokens"];
const FUNCTIONS: u64 = 4000;
/// Points of a timeline, and paths in each.
const POINTS: u64 = 200;
const TOP: usize = 60;
const MINUTE: u64 = 60_000_000_000;

/// xorshift64*: the same numbers everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// A run that allocated on about `paths` call paths. Another `variant` is the same program after
/// a change.
pub fn run(paths: usize, variant: u64) -> Profile {
    let shares = [paths - paths / 5 - paths / 10, paths / 5, paths / 10];
    let processes =
        shares.into_iter().enumerate().map(|(at, share)| process(at as u64, share, variant));
    Profile {
        meta: Meta {
            strandline: "0.1.0".into(),
            started: 1_790_000_000_000_000_000,
            written: 1_790_000_000_000_000_000 + 5 * MINUTE,
            finished: true,
            command: ["python3", "-m", "shop", "--workers", "2"].map(String::from).to_vec(),
            exit_code: Some(0),
            temporary_distance: 64,
            ..Meta::default()
        },
        processes: processes.collect(),
        doubts: vec!["process 4712 ended without a chance to say so".into()],
        ..Profile::default()
    }
}

fn name(function: u64) -> (String, String, u32) {
    let verb = VERBS[(function % 12) as usize];
    let noun = NOUNS[(function / 12 % 9) as usize];
    let text = match function % 7 {
        0 => format!("{}{}.{verb}", noun[..1].to_uppercase(), &noun[1..]),
        1 => format!("{verb}_{noun}.<locals>.<listcomp>"),
        _ => format!("{verb}_{noun}_{}", function / 108),
    };
    let file = match function % 5 {
        0 => format!("/srv/shop/{noun}/{verb}.py"),
        1 => format!(
            "/usr/lib/python3.11/{}/{verb}.py",
            ["json", "email", "xml"][(function % 3) as usize]
        ),
        n => {
            let package = PACKAGES[(function / 5 * n % 8) as usize];
            format!("/opt/venv/lib/python3.11/site-packages/{package}/{noun}.py")
        }
    };
    (text, file, 10 + (function * 37 % 900) as u32)
}

fn process(number: u64, paths: usize, variant: u64) -> Process {
    let mut dice = Dice(0x5eed + number);
    let mut builder = Builder::new();
    let threads = ["", "MainThread", "reader-0", "reader-1", "</script><b>Thread</b>"];
    let mut made = Vec::with_capacity(paths);
    // Every thread has its own way in; later paths branch off earlier ones.
    let mut nodes: Vec<Vec<u32>> = vec![vec![0]; threads.len()];
    for (thread, known) in nodes.iter_mut().enumerate().skip(1) {
        let entry = match thread {
            1 => vec![
                ("<module>", "/srv/shop/__main__.py", 3),
                ("main", "/srv/shop/__main__.py", 41),
            ],
            _ => vec![
                ("Thread._bootstrap", "/usr/lib/python3.11/threading.py", 995),
                ("Thread.run", "/usr/lib/python3.11/threading.py", 975),
            ],
        };
        known.push(builder.python_path(entry));
    }
    while made.len() < paths {
        let thread = 1 + (dice.roll(10) / 4) as usize + dice.roll(2) as usize;
        let known = &mut nodes[thread];
        let mut node = known[1 + dice.roll(known.len() as u64 - 1) as usize];
        let deep = if dice.roll(paths as u64 / 4 + 1) == 0 { 300 } else { 1 + dice.roll(3) };
        // A deep one is recursion: two functions that call each other.
        let pair = dice.roll(FUNCTIONS);
        for level in 0..deep {
            let function =
                if deep == 300 { pair + level % 2 } else { dice.roll(60) * dice.roll(60) };
            let (text, file, line) = name(function);
            let line = line + (dice.roll(4) * u64::from(deep != 300)) as u32;
            node = step(&mut builder, node, &text, &file, line);
        }
        if known.len() < 400_000 {
            known.push(node);
        }
        made.push(path(&mut dice, node, thread as u32, variant));
    }
    made.push(path(&mut dice, 0, 0, 0));
    let process = builder.process();
    process.pid = 4711 + number as u32;
    process.parent_pid = if number == 0 { 1 } else { 4711 };
    process.forked = number > 0;
    process.command = ["python3", "-m", "shop", "--workers", "2"].map(String::from).to_vec();
    process.python = (3, 11, 7);
    process.state = if number == 2 { State::Exited } else { State::Running };
    process.started = 1_790_000_000_000_000_000 + number * MINUTE;
    process.threads = threads
        .iter()
        .enumerate()
        .map(|(at, name)| Thread { name: (*name).into(), tid: 100 + at as u32, allocations: 1 })
        .collect();
    process.timeline = timeline(&mut dice, &made);
    process.paths = made;
    builder.finish()
}

fn step(builder: &mut Builder, node: u32, function: &str, file: &str, line: u32) -> u32 {
    let (function, file) = (builder.string(function), builder.string(file));
    let frame = strandline_profile::Frame { function, file, line, ..Default::default() };
    let frame = builder.frame(frame);
    builder.node(node, frame)
}

fn path(dice: &mut Dice, node: u32, thread: u32, variant: u64) -> Path {
    // A few paths have most of it.
    let large = dice.roll(1000);
    let size = 48 + dice.roll(4000) + 400_000 * (1000 / (large + 1) / 100);
    let blocks = 1 + dice.roll(40);
    let change = [1, 1, 1, 1, 1, 1, 3, 0][dice.roll(8) as usize];
    let grown = if variant > 0 { change } else { 1 };
    let at = |percent: u64| Amount {
        bytes: size * grown * percent / 100,
        blocks: blocks * grown * percent / 100,
    };
    Path {
        node,
        thread,
        domain: Domain::Object,
        allocated: at(300),
        freed: at(300).minus(at(dice.roll(100))),
        at_peak: at(40 + dice.roll(60)),
        at_rss_peak: at(30 + dice.roll(60)),
        temporary: at(dice.roll(150)),
        ..Path::default()
    }
}

fn timeline(dice: &mut Dice, paths: &[Path]) -> Timeline {
    let mut order: Vec<u32> = (0..paths.len() as u32).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(paths[at as usize].at_peak.bytes), at));
    let most: u64 = paths.iter().map(|p| p.at_peak.bytes).sum();
    let point = |n: u64, dice: &mut Dice| {
        // Two humps, the second one higher.
        let height = 20 + n * 60 / POINTS + (n % 80) / 4;
        let of = |bytes: u64| bytes * height / 100;
        let take = |&at: &u32| (at, of(paths[at as usize].at_peak.bytes) * 9 / 10);
        let in_use = of(most);
        let stranded = most / 10 + n * most / 3 / POINTS;
        Point {
            time: n * 5 * MINUTE / 4 / POINTS,
            in_use,
            stranded,
            rss: in_use + stranded + 9_000_000 + dice.roll(2_000_000),
            top: order.iter().skip((n % 3) as usize).take(TOP).map(take).collect(),
        }
    };
    let points = (0..POINTS).map(|n| point(n, dice)).collect();
    Timeline { interval: 5 * MINUTE / 4 / POINTS, points }
}
