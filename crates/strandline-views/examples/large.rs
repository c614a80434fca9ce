//! How long a million call paths take in each view:
//! `cargo run --release -p strandline-views --example large`.

use std::time::Instant;

use strandline_profile::*;
use strandline_report::Sources;
use strandline_views::*;

struct Nothing;

impl Sources for Nothing {
    fn bytes(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
}

/// A million paths over 20,000 places, up to 40 calls deep.
fn large() -> Profile {
    let mut builder = Builder::new();
    let frames: Vec<u32> = (0..20_000u32)
        .map(|i| {
            let function = builder.string(&format!("function_{}", i / 4));
            let file = builder.string(&format!("/srv/app/module_{}.py", i / 100));
            builder.frame(Frame { function, file, line: i % 997 + 1, ..Frame::default() })
        })
        .collect();
    let mut state = 1u64;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut depth = vec![0u32];
    while depth.len() < 1_000_000 {
        let parent = random(depth.len() as u64) as u32;
        if depth[parent as usize] < 40 {
            let frame = frames[random(20_000) as usize];
            if builder.node(parent, frame) as usize == depth.len() {
                depth.push(depth[parent as usize] + 1);
            }
        }
    }
    let paths = (0..depth.len() as u32).map(|node| {
        let amount = Amount { bytes: random(100_000), blocks: random(100) + 1 };
        Path { node, allocated: amount, at_peak: amount, sizes: vec![3, 4], ..Path::default() }
    });
    builder.process().paths = paths.collect();
    Profile { processes: vec![builder.finish()], ..Profile::default() }
}

fn main() {
    let profile = large();
    let mut bytes = Vec::new();
    write(&profile, &mut bytes).unwrap();
    let time = |what: &str, run: &mut dyn FnMut() -> usize| {
        let start = Instant::now();
        let size = run();
        println!("{what:<16} {:>6} ms   {size} bytes", start.elapsed().as_millis());
    };
    time("read", &mut || {
        assert_eq!(read(&mut bytes.as_slice()).unwrap().processes.len(), 1);
        bytes.len()
    });
    time("merge", &mut || Merged::new(&profile, None).map_or(0, |_| 0));
    let merged = Merged::new(&profile, None).unwrap();
    let look = text::Look::default();
    time("report", &mut || text::report(&Report::new(&merged, 10, &Nothing), &look).len());
    time("lines", &mut || {
        text::lines(&Ledger::new(&merged, "module_7.py", &Nothing).unwrap(), &look).len()
    });
    for inverted in [false, true] {
        let options = TreeOptions {
            weight: Weight::Peak,
            inverted,
            thread: None,
            depth: 20,
            min_percent: 0.01,
        };
        time("tree", &mut || text::tree(&CallTree::new(&merged, &options), &look).len());
    }
    time("stats", &mut || text::stats(&Stats::new(&merged, 10), &look).len());
    time("table", &mut || {
        let table = Table::new(&merged, Weight::Peak, By::Function, Sort::Total, 20, None).unwrap();
        text::table(&table, &look).len()
    });
    time("table of all", &mut || {
        let table =
            Table::new(&merged, Weight::Peak, By::Path, Sort::Own, usize::MAX, None).unwrap();
        text::table_csv(&table).len()
    });
    time("diff", &mut || {
        let both = Merged::of(&[&profile, &profile], None).unwrap();
        text::diff(&Diff::new(&both, Weight::Peak, By::Path, 20), &look).len()
    });
}
