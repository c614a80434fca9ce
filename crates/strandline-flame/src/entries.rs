//! The figures: one entry for each call path and thread, a column for each weight.

use strandline_profile::{Amount, Frame, Path, Process, Profile, Weight};

use crate::columns::Columns;
use crate::error::{index, FlameError};
use crate::frames::Frames;
use crate::header;
use crate::moved::Moved;
use crate::tree::{Ordered, Tree, OTHERS_NODE};

/// One process of one run, with its numbers in the page's tables.
#[derive(Debug)]
pub struct Source<'a> {
    pub process: &'a Process,
    /// 0, or 1 for the run after in a difference.
    pub run: usize,
    /// For each of its nodes the one in the tree.
    nodes: Vec<u32>,
    /// For each of its threads the one in the page.
    threads: Vec<u32>,
    /// The thread that stands for all other paths.
    others: u32,
    /// For each of its paths the entry.
    pub entries: Vec<u32>,
    /// The entry of all other paths.
    pub others_entry: u32,
}

/// All entries, by node and thread.
#[derive(Debug)]
pub struct Entries<'a> {
    pub sources: Vec<Source<'a>>,
    pub processes: Vec<header::Process>,
    pub threads: Vec<header::Thread>,
    /// Node and thread of each, packed; sorted.
    keys: Vec<u64>,
    runs: usize,
}

impl<'a> Entries<'a> {
    /// Joins the processes of the runs.
    pub fn new(
        runs: &[&'a Profile],
        frames: &mut Frames,
    ) -> Result<(Entries<'a>, Ordered), FlameError> {
        let mut tree = Tree::new();
        let mut entries = Entries {
            sources: Vec::new(),
            processes: Vec::new(),
            threads: Vec::new(),
            keys: Vec::new(),
            runs: runs.len(),
        };
        let moved = Moved::new(runs);
        let all = || runs.iter().flat_map(|run| &run.processes);
        let start = all().map(|p| p.started).filter(|s| *s > 0).min().unwrap_or(0);
        for (run, profile) in runs.iter().enumerate() {
            for (at, process) in profile.processes.iter().enumerate() {
                let line = |frame: &Frame| moved.line(run, process, frame);
                let nodes = tree.add(process, frames, &line)?;
                let number = if run == 0 { entries.processes.len() } else { at };
                if number >= entries.processes.len() {
                    entries.processes.push(describe(process, start, runs.len() > 1));
                }
                let number = index(number, "processes")?;
                let threads = entries.threads_of(process, number)?;
                let others = entries.thread(number, String::new(), 0, true)?;
                entries.sources.push(Source {
                    process,
                    run,
                    nodes,
                    threads,
                    others,
                    entries: Vec::new(),
                    others_entry: 0,
                });
            }
        }
        let ordered = tree.order();
        entries.number(&ordered)?;
        Ok((entries, ordered))
    }

    fn threads_of(&mut self, process: &Process, number: u32) -> Result<Vec<u32>, FlameError> {
        let threads = process.threads.iter();
        threads.map(|t| self.thread(number, t.name.clone(), t.tid, false)).collect()
    }

    /// A thread of the page. In a difference the same names are the same thread.
    fn thread(
        &mut self,
        process: u32,
        name: String,
        tid: u32,
        others: bool,
    ) -> Result<u32, FlameError> {
        let tid = if self.runs > 1 { 0 } else { tid };
        if self.runs > 1 {
            let same =
                |t: &header::Thread| t.process == process && t.name == name && t.others == others;
            if let Some(at) = self.threads.iter().position(same) {
                return index(at, "threads");
            }
        }
        let at = index(self.threads.len(), "threads")?;
        self.threads.push(header::Thread { process, name, tid, others });
        Ok(at)
    }

    fn number(&mut self, ordered: &Ordered) -> Result<(), FlameError> {
        let key = |node: u32, thread: u32| {
            let node = ordered.of.get(node as usize).copied().unwrap_or(0);
            u64::from(node) << 32 | u64::from(thread)
        };
        let path_key = |source: &Source, path: &Path| {
            let node = source.nodes.get(path.node as usize).copied().unwrap_or(0);
            let thread = source.threads.get(path.thread as usize).copied().unwrap_or(source.others);
            key(node, thread)
        };
        let mut keys = Vec::new();
        for source in &self.sources {
            keys.extend(source.process.paths.iter().map(|p| path_key(source, p)));
            keys.push(key(OTHERS_NODE, source.others));
        }
        keys.sort_unstable();
        keys.dedup();
        index(keys.len(), "call paths")?;
        let find = |key: u64| keys.binary_search(&key).unwrap_or(0) as u32;
        for source in &mut self.sources {
            let paths = source.process.paths.iter();
            source.entries = paths.map(|p| find(path_key(source, p))).collect();
            source.others_entry = find(key(OTHERS_NODE, source.others));
        }
        self.keys = keys;
        Ok(())
    }

    /// Adds the entries and their figures to the page's data.
    pub fn write(&self, to: &mut Columns) {
        to.distances("entry.node", self.keys.iter().map(|k| k >> 32));
        to.numbers("entry.thread", self.keys.iter().map(|k| k & u64::from(u32::MAX)));
        for run in 0..self.runs {
            for weight in Weight::ALL {
                let name = |unit: &str| format!("{run}.{}.{unit}", weight.name());
                let sums = self.sums(run, weight);
                to.numbers(&name("bytes"), sums.iter().map(|a| a.bytes));
                to.numbers(&name("blocks"), sums.iter().map(|a| a.blocks));
            }
        }
    }

    fn sums(&self, run: usize, weight: Weight) -> Vec<Amount> {
        let mut sums = vec![Amount::default(); self.keys.len()];
        for source in self.sources.iter().filter(|s| s.run == run) {
            for (path, &entry) in source.process.paths.iter().zip(&source.entries) {
                if let Some(sum) = sums.get_mut(entry as usize) {
                    *sum = sum.plus(weight.of(path));
                }
            }
        }
        sums
    }
}

fn describe(process: &Process, start: u64, diff: bool) -> header::Process {
    let (major, minor, micro) = process.python;
    header::Process {
        pid: if diff { 0 } else { process.pid },
        command: process.command.join(" "),
        python: match process.python {
            (0, 0, 0) => String::new(),
            _ => format!("{major}.{minor}.{micro}"),
        },
        ended: process.state != strandline_profile::State::Running,
        started: process.started.saturating_sub(start) / 1000,
        points: if diff { 0 } else { process.timeline.points.len() },
    }
}
