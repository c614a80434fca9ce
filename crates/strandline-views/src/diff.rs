//! What changed from one profile to another.

use serde::Serialize;
use strandline_profile::{Amount, Weight};

use crate::error::ViewError;
use crate::group::{By, Groups};
use crate::merge::Merged;
use crate::place::Key;
use crate::run::{ProcessRow, RunRow};
use crate::sums::{largest, own, sum};
use crate::table::own_by_group;
use crate::types::TypeSums;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has bytes in the second profile only.
    New,
    /// It has bytes in the first profile only.
    Gone,
    /// It has more bytes in the second profile.
    Grew,
    /// It has fewer bytes in the second profile.
    Shrank,
    /// It has as many bytes, but another number of blocks.
    Same,
}

/// A row with a difference.
#[derive(Debug, Clone, Serialize)]
pub struct Change<'m> {
    /// What it stands for.
    #[serde(flatten)]
    pub key: Key<'m>,
    /// What became of it.
    pub status: Status,
    /// Bytes more in the second profile.
    pub change_bytes: i64,
    /// Blocks more in the second profile.
    pub change_blocks: i64,
    /// In the first profile.
    pub before: Amount,
    /// In the second profile.
    pub after: Amount,
}

/// What changed.
#[derive(Debug, Clone, Serialize)]
pub struct Diff<'m> {
    /// Name of the format.
    pub schema: &'static str,
    /// How the two profiles were made.
    pub runs: Vec<RunRow<'m>>,
    /// The processes of each that are compared.
    pub processes: Vec<Vec<ProcessRow<'m>>>,
    /// The figure that is compared.
    pub weight: &'static str,
    /// What the rows stand for.
    pub by: &'static str,
    /// The sum of all rows in the first profile.
    pub before: Amount,
    /// The sum of all rows in the second profile.
    pub after: Amount,
    /// The second sum less the first.
    pub change_bytes: i64,
    /// The number of blocks of the second less those of the first.
    pub change_blocks: i64,
    /// Number of rows of each kind; `unchanged` have no difference at all.
    pub counts: Counts,
    /// The rows with the largest differences.
    pub rows: Vec<Change<'m>>,
    /// The figure itself, for the text.
    #[serde(skip)]
    pub figure: Weight,
    /// What the rows stand for, for the text.
    #[serde(skip)]
    pub group: By,
}

/// Number of rows by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows that are new.
    pub new: usize,
    /// Rows that are gone.
    pub gone: usize,
    /// Rows that grew.
    pub grew: usize,
    /// Rows that shrank.
    pub shrank: usize,
    /// Rows without a difference in bytes.
    pub unchanged: usize,
}

impl<'m> Diff<'m> {
    /// From the first profile to the second of two that were merged ([`Merged::of`]). `by`: paths,
    /// lines, functions or files; all else counts as paths.
    pub fn new(merged: &'m Merged<'m>, weight: Weight, by: By, top: usize) -> Diff<'m> {
        let groups = match by {
            By::Line | By::Function | By::File => Some(Groups::new(merged, by)),
            By::Path | By::Thread | By::Domain | By::Type => None,
        };
        let side = |side: usize| {
            let own = own(merged, weight, |entry| entry.side == side);
            match &groups {
                Some(groups) => own_by_group(merged, groups, &own),
                None => own,
            }
        };
        let key = |i: u32| match &groups {
            Some(groups) => groups.key(merged, i),
            None => Key::Path(merged.call_path(i)),
        };
        let by = if groups.is_some() { by } else { By::Path };
        Diff::of(merged, (weight, by), (side(0), side(1)), top, key)
    }

    /// From the first to the second by types of objects: what was in use when the programs had
    /// ended.
    pub fn by_type(merged: &'m Merged<'m>, top: usize) -> Result<Diff<'m>, ViewError> {
        let types = TypeSums::of(merged)?;
        let key = |i: u32| Key::Type(types.names.get(i as usize).copied().unwrap_or_default());
        let side = |side: usize| types.sums.get(side).cloned().unwrap_or_default();
        Ok(Diff::of(merged, (Weight::InUse, By::Type), (side(0), side(1)), top, key))
    }

    /// `before` and `after`: the two figures of each row, as many of one as of the other.
    fn of(
        merged: &Merged<'m>,
        (weight, by): (Weight, By),
        (before, after): (Vec<Amount>, Vec<Amount>),
        top: usize,
        key: impl Fn(u32) -> Key<'m>,
    ) -> Diff<'m> {
        let at = |i: u32| {
            let of = |table: &[Amount]| table.get(i as usize).copied().unwrap_or_default();
            (of(&before), of(&after))
        };
        let mut counts = Counts::default();
        let mut changed = Vec::new();
        for i in 0..before.len() as u32 {
            let (a, b) = at(i);
            if a == b {
                counts.unchanged += usize::from(a != Amount::default());
                continue;
            }
            changed.push(i);
            match status(a, b) {
                Status::New => counts.new += 1,
                Status::Gone => counts.gone += 1,
                Status::Grew => counts.grew += 1,
                Status::Shrank => counts.shrank += 1,
                Status::Same => counts.unchanged += 1,
            }
        }
        let size = |i: u32| {
            let (a, b) = at(i);
            (a.bytes.abs_diff(b.bytes), a.blocks.abs_diff(b.blocks))
        };
        let row = |i: u32| {
            let (before, after) = at(i);
            Change {
                key: key(i),
                status: status(before, after),
                change_bytes: difference(before.bytes, after.bytes),
                change_blocks: difference(before.blocks, after.blocks),
                before,
                after,
            }
        };
        let rows = largest(changed, top, size).into_iter().map(row).collect();
        let (before, after) = (sum(&before), sum(&after));
        Diff {
            schema: "strandline-diff/1",
            runs: merged.profiles().iter().map(|profile| RunRow::of(profile)).collect(),
            processes: (0..merged.profiles().len())
                .map(|side| ProcessRow::all(merged, side))
                .collect(),
            weight: weight.name(),
            by: by.name(),
            before,
            after,
            change_bytes: difference(before.bytes, after.bytes),
            change_blocks: difference(before.blocks, after.blocks),
            counts,
            rows,
            figure: weight,
            group: by,
        }
    }
}

fn status(before: Amount, after: Amount) -> Status {
    match (before.bytes, after.bytes) {
        (a, b) if a == b => Status::Same,
        (0, _) => Status::New,
        (_, 0) => Status::Gone,
        (a, b) if a < b => Status::Grew,
        _ => Status::Shrank,
    }
}

/// Not beyond what fits.
fn difference(before: u64, after: u64) -> i64 {
    let difference = i128::from(after) - i128::from(before);
    difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_a_name() {
        let of = |bytes| Amount { bytes, blocks: 1 };
        assert_eq!(status(of(0), of(1)), Status::New);
        assert_eq!(status(of(1), of(0)), Status::Gone);
        assert_eq!(status(of(1), of(2)), Status::Grew);
        assert_eq!(status(of(2), of(1)), Status::Shrank);
        assert_eq!(status(of(2), of(2)), Status::Same);
        assert_eq!(difference(u64::MAX, 0), i64::MIN);
        assert_eq!(difference(1, 3), 2);
    }
}
