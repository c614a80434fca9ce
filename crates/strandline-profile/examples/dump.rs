//! Prints a profile's paths, largest first: `dump FILE [weight]`.
use strandline_profile::*;

fn main() {
    let mut args = std::env::args().skip(1);
    let file = args.next().expect("a file");
    let weight = args.next().and_then(|w| Weight::of_name(&w)).unwrap_or(Weight::Peak);
    let profile = read(&mut std::fs::File::open(file).expect("opens")).expect("reads");
    println!("{:?} {:?}", profile.meta, profile.doubts);
    for p in &profile.processes {
        let sum = |w: Weight| p.paths.iter().map(|x| w.of(x).bytes).sum::<u64>();
        println!(
            "pid {} {:?} {:?} nodes {} paths {} threads {:?} points {}",
            p.pid,
            p.python,
            p.totals,
            p.nodes.len(),
            p.paths.len(),
            p.threads,
            p.timeline.points.len()
        );
        for w in Weight::ALL {
            println!("  sum {}: {}", w.name(), sum(w));
        }
        let mut paths: Vec<_> = p.paths.iter().collect();
        paths.sort_by_key(|x| std::cmp::Reverse(weight.of(x).bytes));
        for x in paths.iter().take(12) {
            let mut text = String::new();
            let mut node = x.node as usize;
            while node != 0 {
                let f = p.frames[p.nodes[node].frame as usize];
                let file = p.strings[f.file as usize].rsplit('/').next().unwrap_or("");
                text += &format!(" < {}:{}:{}", p.strings[f.function as usize], file, f.line);
                node = p.nodes[node].parent as usize;
            }
            println!(
                "  {:?} {:?} {} all {:?} {text}",
                weight.of(x),
                x.domain,
                x.thread,
                x.allocated
            );
        }
    }
}
