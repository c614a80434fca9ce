//! The page as a whole: what is packed into it is what the profile says.

mod unpacked;

use std::collections::BTreeMap;

use strandline_flame::{render, render_diff, NoSources, Options, Sources};
use strandline_profile::{
    Amount, Builder, Frame, FrameKind, Path, Point, Process, Profile, Thread, Weight,
};
use unpacked::Unpacked;

const EVIL: &str = "</script><b onload=\"alert(1)\">&'{{data}}<!--";

fn amount(bytes: u64) -> Amount {
    Amount { bytes, blocks: bytes / 7 + 1 }
}

fn path(node: u32, thread: u32, bytes: u64) -> Path {
    Path {
        node,
        thread,
        allocated: amount(bytes * 5),
        freed: amount(bytes * 3),
        at_peak: amount(bytes * 4),
        at_rss_peak: amount(bytes),
        temporary: amount(bytes * 2),
        ..Path::default()
    }
}

fn process(pid: u32, shift: u64) -> Process {
    let mut builder = Builder::new();
    let work =
        builder.python_path([("main", "a.py", 1), ("work", "a.py", 20), ("work", "a.py", 20)]);
    let evil = builder.python_path([("main", "a.py", 1), (EVIL, EVIL, 3)]);
    let file = builder.string("/usr/lib/libz.so.1");
    let native = Frame { file, kind: FrameKind::Native, address: 0x1234, ..Frame::default() };
    let native = builder.frame(native);
    let native = builder.node(work, native);
    builder.python_path([("never", "used.py", 1)]);
    let process = builder.process();
    process.pid = pid;
    process.started = 1_000_000_000 * u64::from(pid);
    process.threads.push(Thread { name: EVIL.into(), tid: 7, allocations: 1 });
    process.paths = vec![
        path(work, 1, 1000 + shift),
        path(evil, 0, 300),
        path(work, 1, 50),
        path(native, 1, 1 << 40),
        path(0, 0, 11 * shift),
    ];
    let point = |time, top| Point { time, in_use: 5000, rss: 9000, stranded: 70, top };
    process.timeline.points =
        vec![point(1000, vec![(0, 1000), (2, 500)]), point(5000, vec![(9, 1)])];
    builder.finish()
}

fn profile(shift: u64) -> Profile {
    Profile {
        meta: strandline_profile::Meta {
            command: vec!["python".into(), EVIL.into()],
            ..Default::default()
        },
        processes: vec![process(1, shift), process(2, shift)],
        doubts: vec![EVIL.into()],
        ..Profile::default()
    }
}

fn page(profile: &Profile, options: &Options, sources: &dyn Sources) -> String {
    let mut page = Vec::new();
    render(profile, options, sources, &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

/// Sum of every call path and thread, as texts.
type Sums = BTreeMap<(String, String), (u64, u64)>;

fn add(sums: &mut Sums, path: String, thread: String, bytes: u64, blocks: u64) {
    if (bytes, blocks) != (0, 0) {
        let sum = sums.entry((path, thread)).or_default();
        *sum = (sum.0 + bytes, sum.1 + blocks);
    }
}

fn expected(profile: &Profile, weight: Weight) -> Sums {
    let mut sums = Sums::new();
    for (number, process) in profile.processes.iter().enumerate() {
        for path in &process.paths {
            let mut frames = Vec::new();
            let mut at = path.node as usize;
            while at != 0 {
                let frame = process.frames[process.nodes[at].frame as usize];
                let text = |at: u32| process.strings[at as usize].clone();
                let function = match frame.kind {
                    FrameKind::Native => format!("{:#x}", frame.address),
                    FrameKind::Python => text(frame.function),
                };
                frames.push(format!("{function}|{}|{}", text(frame.file), frame.line));
                at = process.nodes[at].parent as usize;
            }
            if frames.is_empty() {
                frames.push("no code".into());
            }
            frames.reverse();
            let name = process.threads[path.thread as usize].name.clone();
            let amount = weight.of(path);
            let thread = format!("{number}|{name}");
            add(&mut sums, frames.join(" > "), thread, amount.bytes, amount.blocks);
        }
    }
    sums
}

fn embedded(page: &Unpacked, run: usize, weight: Weight) -> Sums {
    let mut sums = Sums::new();
    let column = |unit: &str| page.numbers(&format!("{run}.{}.{unit}", weight.name()));
    let (bytes, blocks) = (column("bytes"), column("blocks"));
    for (at, (path, thread)) in page.entries().into_iter().enumerate() {
        add(&mut sums, path, thread, bytes[at], blocks[at]);
    }
    sums
}

#[test]
fn every_weight_of_every_path_is_in_the_page() {
    let profile = profile(0);
    let page = Unpacked::new(&page(&profile, &Options::default(), &NoSources));
    for weight in Weight::ALL {
        let sums = expected(&profile, weight);
        assert_eq!(embedded(&page, 0, weight), sums, "{}", weight.name());
        assert!(sums.len() >= 6);
    }
    assert_eq!(page.header["weight"], "peak");
    assert!(!page.texts().iter().any(|t| t == "used.py"), "only what is needed");
}

#[test]
fn a_difference_holds_both_runs_on_the_same_paths() {
    let (before, after) = (profile(0), profile(5));
    let mut page = Vec::new();
    render_diff(&before, &after, &Options::default(), &NoSources, &mut page).unwrap();
    let page = Unpacked::new(&String::from_utf8(page).unwrap());
    for weight in Weight::ALL {
        assert_eq!(embedded(&page, 0, weight), expected(&before, weight));
        assert_eq!(embedded(&page, 1, weight), expected(&after, weight));
    }
    // Two processes; two threads of each, and what stands for all other paths.
    assert_eq!(page.header["threads"].as_array().unwrap().len(), 6);
    assert_eq!(page.header["diff"], true);
}

#[test]
fn more_processes_after_than_before() {
    let (mut before, after) = (profile(0), profile(5));
    before.processes.truncate(1);
    let mut page = Vec::new();
    render_diff(&before, &after, &Options::default(), &NoSources, &mut page).unwrap();
    let page = Unpacked::new(&String::from_utf8(page).unwrap());
    assert_eq!(embedded(&page, 0, Weight::Peak), expected(&before, Weight::Peak));
    assert_eq!(embedded(&page, 1, Weight::Peak), expected(&after, Weight::Peak));
    assert_eq!(page.header["processes"].as_array().unwrap().len(), 2);
}

#[test]
fn a_point_of_the_timeline_makes_what_was_in_use() {
    let page = Unpacked::new(&page(&profile(0), &Options::default(), &NoSources));
    assert_eq!(page.numbers("point.in_use"), [5000; 4]);
    assert_eq!(page.numbers("point.top"), [2, 1, 2, 1]);
    // Path 0 and path 2 are the same entry; a path that isn't there is left to the others.
    let top = page.numbers("top.entry");
    assert_eq!(top[0], top[1]);
    assert_eq!(page.entries()[top[0] as usize].0, "main|a.py|1 > work|a.py|20 > work|a.py|20");
    assert_eq!(page.numbers("others.bytes"), [3500, 4999, 3500, 4999]);
    assert_eq!(top[2], page.numbers("others.entry")[0]);
}

#[test]
fn nothing_of_a_profile_is_markup() {
    let page = page(&profile(0), &Options::default(), &NoSources);
    assert_eq!(page.matches("</script>").count(), 2, "data and script end once each");
    assert!(!page.contains("<b onload") && !page.contains("<!--"));
    assert!(page.contains("&lt;/script&gt;&lt;b onload=&quot;alert(1)&quot;&gt;&amp;&#39;{{data}}"));
    let texts = Unpacked::new(&page).texts();
    assert!(texts.iter().any(|t| t == EVIL), "but it is there");
}

#[test]
fn the_page_asks_nobody_for_anything() {
    let page = page(&profile(0), &Options::default(), &NoSources);
    let markup = page.split("<script").next().unwrap();
    assert!(markup.contains("default-src 'none'"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("@import"));
}

#[test]
fn the_same_profile_gives_the_same_page() {
    let options = Options::default();
    assert_eq!(page(&profile(3), &options, &NoSources), page(&profile(3), &options, &NoSources));
}

struct Lines;

impl Sources for Lines {
    fn line(&self, file: &str, line: u32) -> Option<String> {
        (file == "a.py").then(|| format!("line {line} {EVIL}"))
    }
}

#[test]
fn source_lines_only_if_wanted() {
    let with = Unpacked::new(&page(&profile(0), &Options::default(), &Lines));
    assert!(with.texts().contains(&format!("line 20 {EVIL}")));
    assert_eq!(with.numbers("frame.source").iter().filter(|s| **s != 0).count(), 2);
    let options = Options { sources: false, ..Options::default() };
    let without = Unpacked::new(&page(&profile(0), &options, &Lines));
    assert!(without.numbers("frame.source").is_empty());
    assert!(!without.texts().iter().any(|t| t.starts_with("line ")));
}

#[test]
fn title_and_first_weight_are_as_wanted() {
    let options =
        Options { title: Some("A <title>".into()), weight: Weight::InUse, ..Options::default() };
    let page = page(&profile(0), &options, &NoSources);
    assert!(page.contains("<title>A &lt;title&gt;</title>"));
    assert_eq!(Unpacked::new(&page).header["weight"], "in-use");
}

#[test]
fn empty_and_broken_profiles_are_no_reason_to_panic() {
    let empty = Unpacked::new(&page(&Profile::default(), &Options::default(), &NoSources));
    assert!(empty.entries().is_empty());
    // What a reader of files would have cut out.
    let mut broken = profile(0);
    let process = &mut broken.processes[0];
    process.paths.push(path(9999, 9999, 8));
    process.nodes[2].parent = 9999;
    process.nodes[3].frame = 9999;
    process.frames[1].function = 9999;
    process.timeline.points[0].top.push((9999, u64::MAX));
    process.paths[0].at_peak.bytes = u64::MAX;
    broken.processes.push(Process::default());
    let page = Unpacked::new(&page(&broken, &Options::default(), &NoSources));
    assert!(!page.entries().is_empty());
}
