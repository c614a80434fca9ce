//! From single runs to figures, differences and a verdict.

use super::{Difference, Measured, Point, Remedy, Row, Verdict};
use crate::Exit;

/// One run. Amounts are bytes; `None`: the program never came to that point.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sample {
    pub peak_rss: Option<i64>,
    pub end_rss: Option<i64>,
    pub marked_rss: Option<i64>,
    pub after_action_rss: Option<i64>,
    pub run_ns: u64,
    pub exit: Exit,
    /// A number that stands for all that was written to stdout and stderr.
    pub output: u64,
    /// Why the run counts as failed, whatever its exit code.
    pub error: Option<String>,
    /// The last line that it wrote to stderr.
    pub last_words: Option<String>,
}

/// Differences up to this are noise whatever the program's size: half a MiB.
const NOISE_BYTES: i64 = 512 << 10;

/// The middle one, or half-way between both.
fn median(mut of: Vec<i64>) -> Option<i64> {
    of.sort_unstable();
    let upper = *of.get(of.len() / 2)?;
    let lower = *of.get((of.len() - 1) / 2)?;
    Some(lower + (upper - lower) / 2)
}

/// The median of what all runs have.
fn median_of(runs: &[Sample], figure: impl Fn(&Sample) -> Option<i64>) -> Option<i64> {
    median(runs.iter().map(figure).collect::<Option<Vec<i64>>>()?)
}

/// How large a difference of RSS has to be to mean something: half a MiB, 1 %, and more than
/// the program differs from itself.
pub fn noise(as_is: &[Sample]) -> i64 {
    let ends: Vec<i64> = as_is.iter().filter_map(|s| s.end_rss).collect();
    let (least, most) = (ends.iter().min().copied(), ends.iter().max().copied());
    let spread = most.zip(least).map_or(0, |(most, least)| most - least);
    let percent = median(ends).map_or(0, |end| end / 100);
    NOISE_BYTES.max(percent).max(spread)
}

impl Measured {
    /// Medians of these runs, of which there is at least one; the exit of the first one.
    pub fn of(runs: &[Sample]) -> Measured {
        let marked = median_of(runs, |s| s.marked_rss);
        let end = median_of(runs, |s| s.end_rss);
        let run_ns = median_of(runs, |s| Some(s.run_ns.min(i64::MAX as u64) as i64));
        Measured {
            peak_rss_bytes: median_of(runs, |s| s.peak_rss),
            end_rss_bytes: end,
            marked_rss_bytes: marked,
            after_action_rss_bytes: median_of(runs, |s| s.after_action_rss),
            returned_bytes: marked.zip(end).map(|(marked, end)| marked - end),
            run_ns: run_ns.unwrap_or(0) as u64,
            exit: runs.first().map_or(Exit { code: None, signal: None }, |s| s.exit),
        }
    }
}

impl Row {
    /// Judges the runs under a remedy by those of the program as it is.
    pub fn of(remedy: Remedy, runs: &[Sample], as_is: &[Sample]) -> Row {
        let mut measured = Measured::of(runs);
        let before = Measured::of(as_is);
        let failed = runs.iter().find(|s| s.error.is_some() || s.exit != before.exit);
        if let Some(failed) = failed {
            measured.exit = failed.exit;
        }
        let minus = |a: Option<i64>, b: Option<i64>| a.zip(b).map(|(a, b)| a - b);
        let difference = Difference {
            peak_rss_bytes: minus(measured.peak_rss_bytes, before.peak_rss_bytes),
            end_rss_bytes: minus(measured.end_rss_bytes, before.end_rss_bytes),
            returned_bytes: minus(measured.returned_bytes, before.returned_bytes),
            run_ns: measured.run_ns as i64 - before.run_ns as i64,
        };
        let noise = noise(as_is);
        let error = failed.map(why).or_else(|| {
            difference.end_rss_bytes.is_none().then(|| "its end was not seen".to_owned())
        });
        let verdict = match difference.end_rss_bytes {
            _ if error.is_some() => Verdict::Failed,
            Some(d) if d < -noise => Verdict::Better,
            Some(d) if d > noise => Verdict::Worse,
            _ => Verdict::NoEffect,
        };
        Row {
            remedy,
            measured,
            difference,
            verdict,
            error,
            output_differs: output_differs(runs, as_is),
        }
    }
}

fn why(failed: &Sample) -> String {
    if let Some(error) = &failed.error {
        return error.clone();
    }
    let how = match failed.exit {
        Exit { signal: Some(signal), .. } => format!("killed by signal {signal}"),
        Exit { code, .. } => format!("exit code {}", code.unwrap_or(0)),
    };
    match &failed.last_words {
        Some(words) => format!("{how}: {words}"),
        None => how,
    }
}

/// A program that writes something else each time says nothing by that.
fn output_differs(runs: &[Sample], as_is: &[Sample]) -> Option<bool> {
    let first = as_is.first()?.output;
    let steady = as_is.iter().all(|s| s.output == first);
    steady.then(|| runs.iter().any(|s| s.output != first))
}

/// Best first: those that failed last, else by RSS at the end, else by run time.
pub(super) fn rank(row: &Row) -> (bool, i64, u64) {
    let end = row.measured.end_rss_bytes.unwrap_or(i64::MAX);
    (row.verdict == Verdict::Failed, end, row.measured.run_ns)
}

impl super::Remedies {
    /// Puts the best first.
    pub fn sort(&mut self) {
        self.remedies.sort_by_key(rank);
    }
}

impl Point {
    /// The point that a program has which came to marks and returns so many times.
    pub fn of(marks: u64, returns: u64) -> (Point, u64) {
        match (marks, returns) {
            (0, 0) => (Point::End, 1),
            (0, returns) => (Point::Return, returns),
            (marks, _) => (Point::Mark, marks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn run(end: i64, output: u64) -> Sample {
        Sample {
            peak_rss: Some(end + MIB),
            end_rss: Some(end),
            marked_rss: None,
            after_action_rss: None,
            run_ns: 1_000_000,
            exit: Exit { code: Some(0), signal: None },
            output,
            error: None,
            last_words: None,
        }
    }

    fn judged(runs: &[Sample], as_is: &[Sample]) -> Row {
        Row::of(Remedy::default(), runs, as_is)
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3]), Some(3));
        assert_eq!(median(vec![9, 1, 4]), Some(4));
        assert_eq!(median(vec![8, 2, 4, 100]), Some(6));
        // One run that never came to a point leaves no figure.
        let mut runs = vec![run(5, 0), run(7, 0)];
        runs[0].end_rss = None;
        assert_eq!(Measured::of(&runs).end_rss_bytes, None);
        assert_eq!(Measured::of(&runs).peak_rss_bytes, Some(6 + MIB));
    }

    #[test]
    fn small_differences_are_no_effect() {
        let as_is = [run(20 * MIB, 1)];
        assert_eq!(noise(&as_is), MIB / 2);
        let verdict = |end| judged(&[run(end, 1)], &as_is).verdict;
        assert_eq!(verdict(20 * MIB + MIB / 2), Verdict::NoEffect);
        assert_eq!(verdict(20 * MIB + MIB / 2 + 1), Verdict::Worse);
        assert_eq!(verdict(20 * MIB - MIB / 2), Verdict::NoEffect);
        assert_eq!(verdict(20 * MIB - MIB / 2 - 1), Verdict::Better);
        // 1 % of what is large, and no less than the program's own differences.
        assert_eq!(noise(&[run(1000 * MIB, 1)]), 10 * MIB);
        assert_eq!(noise(&[run(20 * MIB, 1), run(24 * MIB, 1)]), 4 * MIB);
    }

    #[test]
    fn another_end_is_a_failure() {
        let as_is = [run(20 * MIB, 1)];
        let mut bad = run(10 * MIB, 1);
        bad.exit = Exit { code: Some(3), signal: None };
        bad.last_words = Some("no room".to_owned());
        let row = judged(&[run(10 * MIB, 1), bad.clone()], &as_is);
        assert_eq!(
            (row.verdict, row.error.as_deref()),
            (Verdict::Failed, Some("exit code 3: no room"))
        );
        assert_eq!(row.measured.exit.code, Some(3));
        // A program that always ends so doesn't fail because of a remedy.
        let row = judged(&[bad.clone()], &[bad.clone()]);
        assert_eq!(row.verdict, Verdict::NoEffect);
        bad.end_rss = None;
        assert_eq!(judged(&[bad.clone()], &[bad]).verdict, Verdict::Failed);
    }

    #[test]
    fn output_is_compared_if_it_is_steady() {
        let as_is = [run(20 * MIB, 1)];
        assert_eq!(judged(&[run(0, 1)], &as_is).output_differs, Some(false));
        assert_eq!(judged(&[run(0, 2)], &as_is).output_differs, Some(true));
        let unsteady = [run(20 * MIB, 1), run(20 * MIB, 2)];
        assert_eq!(judged(&[run(0, 3), run(0, 1)], &unsteady).output_differs, None);
    }

    #[test]
    fn the_order_is_by_the_end_then_by_time() {
        let as_is = [run(20 * MIB, 1)];
        let mut failed = run(MIB, 1);
        failed.error = Some("no".to_owned());
        let mut slow = run(5 * MIB, 1);
        slow.run_ns *= 2;
        let rows = [run(9 * MIB, 1), failed, slow, run(5 * MIB, 1)];
        let mut ranks: Vec<_> = rows.map(|r| rank(&judged(&[r], &as_is))).into();
        ranks.sort();
        let ends: Vec<_> = ranks.iter().map(|r| (r.0, r.1 / MIB, r.2)).collect();
        assert_eq!(
            ends,
            [
                (false, 5, 1_000_000),
                (false, 5, 2_000_000),
                (false, 9, 1_000_000),
                (true, 1, 1_000_000)
            ]
        );
    }
}
