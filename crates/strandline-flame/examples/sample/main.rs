//! Makes pages of a made-up program, for looking at them and for their tests.
//!
//!     cargo run -p strandline-flame --example sample -- OUT.html [PATHS] [--diff]
//!
//! Prints the sums that the page has to show, as JSON.

mod program;

use std::fs::File;
use std::io::BufWriter;

use strandline_flame::{render, render_diff, NoSources, Options, Sources};
use strandline_profile::{Amount, Profile, Weight};

/// Lines as if the files were there.
struct Lines;

impl Sources for Lines {
    fn line(&self, file: &str, line: u32) -> Option<String> {
        (!file.contains("site-packages/c")).then(|| format!("result.append(step(x, {line}))"))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (diff, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|word| word == "--diff");
    let usage = "usage: sample OUT.html [PATHS] [--diff]";
    let out = words.first().ok_or(usage)?;
    let paths = words.get(1).map_or(Ok(20_000), |n| n.parse())?;
    let mut to = BufWriter::new(File::create(out)?);
    let options = Options::default();
    let profile = program::run(paths, 0);
    if diff.is_empty() {
        // Many lines would only make the file large.
        let sources: &dyn Sources = if paths > 100_000 { &NoSources } else { &Lines };
        render(&profile, &options, sources, &mut to)?;
        println!("{}", serde_json::json!({ "now": sums(&profile) }));
    } else {
        let after = program::run(paths, 1);
        render_diff(&profile, &after, &options, &Lines, &mut to)?;
        println!("{}", serde_json::json!({ "before": sums(&profile), "now": sums(&after) }));
    }
    Ok(())
}

fn sums(profile: &Profile) -> serde_json::Value {
    let mut weights = serde_json::Map::new();
    for weight in Weight::ALL {
        let all = profile.processes.iter().flat_map(|p| &p.paths);
        weights.insert(weight.name().into(), amount(all.map(|p| weight.of(p))));
    }
    let mut threads = Vec::new();
    for process in &profile.processes {
        for (at, thread) in process.threads.iter().enumerate() {
            let paths = process.paths.iter().filter(|p| p.thread as usize == at);
            let peak = amount(paths.map(|p| Weight::Peak.of(p)));
            threads
                .push(serde_json::json!({ "pid": process.pid, "name": thread.name, "peak": peak }));
        }
    }
    let points = profile.processes.iter().map(|process| {
        let points = process.timeline.points.iter();
        let points: Vec<_> = points.map(|p| (p.time / 1000, p.in_use)).collect();
        serde_json::json!({ "started": process.started / 1000, "points": points })
    });
    serde_json::json!({ "weights": weights, "threads": threads, "points": points.collect::<Vec<_>>() })
}

fn amount(amounts: impl Iterator<Item = Amount>) -> serde_json::Value {
    let sum = amounts.fold(Amount::default(), Amount::plus);
    serde_json::json!({ "bytes": sum.bytes, "blocks": sum.blocks })
}
