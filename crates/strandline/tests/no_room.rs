//! `run --stacks` of a program with more call paths than there is room for.

mod common;

use common::recorded::*;
use common::*;
use strandline_profile::{Amount, Weight};

/// 1,102,500 paths, each with a block of 100 bytes (or a little more) that stays.
const SOURCE: &str = r#"
N = 1050
kept = []
source = "def inner():\n" + "    take()\n" * N + "def outer():\n" + "    inner()\n" * N
def take():
    kept.append(bytes(67))
exec(compile(source, "many", "exec"))
def last():
    kept.append(bytes(1000000))
outer()
last()
del kept[:1000000]
"#;

#[test]
fn the_rest_has_a_name_and_sums_are_right() {
    let python = pythons().last().unwrap();
    let recorded = record_with(python, SOURCE, &["--top", "0"]);
    let p = &recorded.profile.processes[0];
    adds_up(p);
    assert!(p.paths.len() > 1_000_000, "{}", p.paths.len());
    let rest = |weight| under(p, &["(call paths that found no room)"], weight);
    let taken = |weight| under(p, &["take", "inner", "outer"], weight).plus(rest(weight));
    let Amount { bytes, blocks } = taken(Weight::Allocated);
    assert!(blocks >= 1_102_500 && bytes >= 1_102_500 * 100 + 1_000_000, "{bytes} in {blocks}");
    assert!(rest(Weight::Allocated).blocks >= 1_102_500 - (1 << 20));
    assert_eq!(p.totals.overflowed, rest(Weight::Allocated).blocks);
    // What was freed were the first: nearly all of the rest is still there.
    assert!(rest(Weight::InUse).bytes > (1_102_500 - (1 << 20)) * 100 + 1_000_000);
    assert!(taken(Weight::InUse).blocks < 110_000);
    let doubts = &recorded.profile.doubts;
    assert!(doubts.len() == 1 && doubts[0].contains("found no room"), "{doubts:?}");
}
