//! Making what a file said safe to use: every index in range, every parent before its child.

use crate::model::{Process, Profile, LIFETIME_CLASSES, SIZE_CLASSES};

/// Cuts out what refers to nothing, with a doubt for each kind.
pub fn check(profile: &mut Profile) {
    for process in &mut profile.processes {
        let cut = process_cut(process);
        if cut > 0 {
            profile.doubts.push(format!(
                "process {}: {cut} entries refer to what isn't in the file; they were left out \
                 or put under \"unknown\"",
                process.pid
            ));
        }
    }
}

fn process_cut(process: &mut Process) -> usize {
    let mut cut = 0;
    for (table, len) in [
        ("strings", process.strings.len()),
        ("frames", process.frames.len()),
        ("nodes", process.nodes.len()),
        ("threads", process.threads.len()),
    ] {
        if len == 0 {
            cut += 1;
            match table {
                "strings" => process.strings.push(String::new()),
                "frames" => process.frames.push(Default::default()),
                "nodes" => process.nodes.push(Default::default()),
                _ => process.threads.push(Default::default()),
            }
        }
    }
    let strings = process.strings.len();
    let mut fix = |index: &mut u32, len: usize| {
        if *index as usize >= len {
            *index = 0;
            cut += 1;
        }
    };
    for frame in &mut process.frames {
        fix(&mut frame.function, strings);
        fix(&mut frame.file, strings);
    }
    for module in &mut process.modules {
        fix(&mut module.file, strings);
    }
    let frames = process.frames.len();
    for (i, node) in process.nodes.iter_mut().enumerate() {
        fix(&mut node.frame, frames);
        fix(&mut node.parent, i.max(1));
    }
    let (nodes, threads) = (process.nodes.len(), process.threads.len());
    for path in &mut process.paths {
        fix(&mut path.node, nodes);
        fix(&mut path.thread, threads);
        path.sizes.truncate(SIZE_CLASSES);
        path.lifetimes.truncate(LIFETIME_CLASSES);
    }
    let paths = process.paths.len();
    for point in &mut process.timeline.points {
        let before = point.top.len();
        point.top.retain(|&(path, _)| (path as usize) < paths);
        cut += before - point.top.len();
    }
    if let Some(root) = process.nodes.first_mut() {
        *root = Default::default();
    }
    cut
}
