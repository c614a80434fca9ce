//! Whatever a valid profile holds: every view of it can be made, adds up, and is the same again.

use proptest::prelude::*;
use strandline_profile::*;
use strandline_report::Sources;
use strandline_views::*;

struct Nothing;

impl Sources for Nothing {
    fn bytes(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
}

fn amount() -> impl Strategy<Value = Amount> {
    let number = prop_oneof![0..3u64, 0..1u64 << 40, Just(u64::MAX / 64)];
    (number.clone(), number).prop_map(|(bytes, blocks)| Amount { bytes, blocks })
}

prop_compose! {
    fn path()(
        node in 0..24u32, thread in 0..4u32, domain in 0..5usize,
        amounts in prop::collection::vec(amount(), 5),
        sizes in prop::collection::vec(any::<u32>(), 0..25),
        lifetimes in prop::collection::vec(any::<u32>(), 0..20),
    ) -> Path {
        use Domain::*;
        let domain = [Object, Mem, Raw, Malloc, Mmap][domain];
        let [allocated, freed, at_peak, at_rss_peak, temporary] = amounts.try_into().unwrap();
        Path { node, thread, domain, allocated, inherited: Amount::default(), freed, at_peak, at_rss_peak, temporary, sizes, lifetimes }
    }
}

prop_compose! {
    fn process()(
        pid in 0..4u32,
        strings in prop::collection::vec("(|[a-z./]{1,3}|\\PC{1,9}|.{1,40})", 0..8),
        frames in prop::collection::vec((0..8u32, 0..8u32, 0..4u32, any::<bool>(), 0..3u64), 0..10),
        nodes in prop::collection::vec((0..24u32, 0..10u32), 0..24),
        threads in prop::collection::vec(("[a-b]{0,2}", 0..3u32), 0..4),
        paths in prop::collection::vec(path(), 0..20),
        figures in prop::collection::vec(any::<u64>(), 5),
        state in 0..3usize,
    ) -> Process {
        let [in_use, peak, rss, stranded, started] = figures.try_into().unwrap();
        Process {
            pid,
            command: strings.clone(),
            state: [State::Running, State::Exited, State::Replaced][state],
            started,
            strings,
            frames: frames.into_iter().map(|(function, file, line, native, address)| Frame {
                function, file, line, address,
                kind: if native { FrameKind::Native } else { FrameKind::Python },
                ..Frame::default()
            }).collect(),
            nodes: nodes.into_iter().map(|(parent, frame)| Node { parent, frame }).collect(),
            threads: threads.into_iter().map(|(name, tid)| Thread { name, tid, allocations: 1 }).collect(),
            paths,
            totals: Totals { in_use, peak, rss, stranded_arenas: stranded, stranded_heap: stranded, ..Totals::default() },
            ..Process::default()
        }
    }
}

prop_compose! {
    fn profile()(
        processes in prop::collection::vec(process(), 0..3),
        times in any::<(u64, u64)>(),
        finished in any::<bool>(),
        signal in prop::option::of(any::<i32>()),
        rows in prop::collection::vec(("(|[a-z.]{1,3}|\\PC{1,9})", amount()), 0..6),
        pid in 0..4u32,
    ) -> Profile {
        let meta = Meta { started: times.0, written: times.1, finished, signal, ..Meta::default() };
        let rows = rows.into_iter().map(|(name, in_use)| TypeRow { name, in_use }).collect();
        let types = vec![Types { pid, rows }];
        // Reading makes it valid, as it does with files.
        let mut bytes = Vec::new();
        write(&Profile { meta, processes, types, ..Profile::default() }, &mut bytes).unwrap();
        read(&mut bytes.as_slice()).unwrap()
    }
}

fn sum(profile: &Profile, weight: Weight) -> Amount {
    let paths = profile.processes.iter().flat_map(|p| &p.paths);
    paths.fold(Amount::default(), |sum, path| sum.plus(weight.of(path)))
}

fn looks() -> [text::Look; 2] {
    let usual = text::Look::default();
    [
        text::Look { width: 60, colour: true, boxes: true, cwd: Some("/".into()), ..usual.clone() },
        usual,
    ]
}

/// A tree's rows add up to the row above them.
fn adds_up(tree: &CallTree, whole: Amount) {
    assert_eq!(tree.rows[0].total, whole);
    let mut sums: Vec<Amount> = tree.rows.iter().map(|row| row.own).collect();
    for row in &tree.rows {
        if let Some(parent) = row.parent {
            sums[parent] = sums[parent].plus(row.total);
            assert_eq!(tree.rows[parent].depth + 1, row.depth);
        }
    }
    for (row, sum) in tree.rows.iter().zip(sums) {
        assert!(row.omitted.is_some() || row.total == sum, "{row:?} has {sum:?}");
    }
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap()
}

fn trees(profile: &Profile, merged: &Merged, weight: Weight, depth: u32) {
    for inverted in [false, true] {
        for min_percent in [0.0, 10.0] {
            let options = TreeOptions { weight, inverted, thread: None, depth, min_percent };
            let tree = CallTree::new(merged, &options);
            adds_up(&tree, sum(profile, weight));
            json(&tree);
            looks().iter().for_each(|look| assert!(!text::tree(&tree, look).is_empty()));
        }
    }
}

fn tables(profile: &Profile, merged: &Merged, weight: Weight) {
    for by in By::ALL {
        for sort in Sort::ALL {
            let has_types = profile.processes.iter().any(|p| p.pid == profile.types[0].pid);
            let table = Table::new(merged, weight, by, sort, usize::MAX, None);
            assert_eq!(table.is_ok(), by != By::Type || has_types);
            let Ok(table) = table else { continue };
            let rows = table.rows.iter().fold(Amount::default(), |sum, row| sum.plus(row.own));
            let whole = match by {
                By::Type => profile.types[0]
                    .rows
                    .iter()
                    .fold(Amount::default(), |sum, row| sum.plus(row.in_use)),
                _ => sum(profile, weight),
            };
            assert_eq!((rows, table.total), (whole, whole));
            assert_eq!(json(&table)["rows"].as_array().unwrap().len(), table.row_count);
            assert!(table
                .rows
                .iter()
                .all(|row| row.total.is_none_or(|t| t.bytes >= row.own.bytes)));
            looks().iter().for_each(|look| assert!(!text::table(&table, look).is_empty()));
            assert!(!text::table_csv(&table).is_empty());
        }
        let first = Table::new(merged, weight, by, Sort::Own, 2, Some("a"));
        assert!(first.is_ok_and(|first| first.rows.len() <= 2) || by == By::Type);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_view_can_be_made_and_adds_up(profile in profile(), other in profile(), depth in 0..5u32) {
        let merged = Merged::new(&profile, None).unwrap();
        for weight in Weight::ALL {
            trees(&profile, &merged, weight, depth);
            tables(&profile, &merged, weight);
        }
        let report = Report::new(&merged, 3, &Nothing);
        prop_assert_eq!(report.at_peak.total, sum(&profile, Weight::Peak));
        prop_assert_eq!(report.in_use.total, sum(&profile, Weight::InUse));
        prop_assert_eq!(report.allocated, sum(&profile, Weight::Allocated));
        let stats = Stats::new(&merged, 3);
        prop_assert_eq!(stats.total.temporary, sum(&profile, Weight::Temporary));
        json(&report);
        json(&stats);
        for look in &looks() {
            prop_assert_eq!(text::report(&report, look), text::report(&report, look));
            text::stats(&stats, look);
        }
        for process in &profile.processes {
            for file in &process.strings {
                if let Ok(ledger) = Ledger::new(&merged, file, &Nothing) {
                    json(&ledger);
                    looks().iter().for_each(|look| { text::lines(&ledger, look); });
                }
            }
        }
        let both = Merged::of(&[&profile, &other], None).unwrap();
        for by in [By::Path, By::Line, By::Function, By::File] {
            let diff = Diff::new(&both, Weight::Allocated, by, usize::MAX);
            prop_assert_eq!(diff.before, sum(&profile, Weight::Allocated));
            prop_assert_eq!(diff.after, sum(&other, Weight::Allocated));
            let grown: i128 = diff.rows.iter().map(|row| i128::from(row.change_bytes)).sum();
            prop_assert_eq!(grown, i128::from(diff.change_bytes));
            json(&diff);
            looks().iter().for_each(|look| { text::diff(&diff, look); });
        }
    }
}
