//! Types of objects: what was in use of each at the end of the run, in every profile.

use rustc_hash::FxHashMap;
use strandline_profile::Amount;

use crate::error::ViewError;
use crate::merge::Merged;
use crate::sums::add;

/// Sums by type.
pub(crate) struct TypeSums<'p> {
    /// The types of all profiles.
    pub names: Vec<&'p str>,
    /// For each profile what each type has.
    pub sums: Vec<Vec<Amount>>,
}

impl<'p> TypeSums<'p> {
    /// Of the chosen processes; an error if a profile says nothing of types.
    pub fn of(merged: &Merged<'p>) -> Result<TypeSums<'p>, ViewError> {
        let mut known: FxHashMap<&'p str, u32> = FxHashMap::default();
        let mut names = Vec::new();
        let mut sums = Vec::new();
        for (side, profile) in merged.profiles().iter().enumerate() {
            let chosen = |pid: u32| {
                merged.parts().iter().any(|part| part.side == side && part.process.pid == pid)
            };
            let types: Vec<_> = profile.types.iter().filter(|types| chosen(types.pid)).collect();
            if types.is_empty() {
                return Err(ViewError::NoTypes { run: profile.meta.command.join(" ") });
            }
            let mut sum: Vec<Amount> = Vec::new();
            for row in types.iter().flat_map(|types| &types.rows) {
                let i = *known.entry(&row.name).or_insert_with(|| {
                    names.push(row.name.as_str());
                    (names.len() - 1) as u32
                });
                sum.resize(names.len().max(sum.len()), Amount::default());
                add(&mut sum, i, row.in_use);
            }
            sums.push(sum);
        }
        for sum in &mut sums {
            sum.resize(names.len(), Amount::default());
        }
        Ok(TypeSums { names, sums })
    }
}

#[cfg(test)]
mod tests {
    use strandline_profile::{Process, Profile, TypeRow, Types};

    use super::*;

    fn profile(rows: &[(&str, u64)]) -> Profile {
        let row = |&(name, bytes): &(&str, u64)| {
            let in_use = Amount { bytes, blocks: 1 };
            TypeRow { name: name.to_owned(), in_use }
        };
        let types = match rows {
            [] => Vec::new(),
            rows => vec![Types { pid: 7, rows: rows.iter().map(row).collect() }],
        };
        let process = Process { pid: 7, ..Process::default() };
        Profile { processes: vec![process], types, ..Profile::default() }
    }

    #[test]
    fn types_are_told_by_their_names() {
        let (a, b) = (profile(&[("dict", 10), ("int", 5)]), profile(&[("str", 3), ("dict", 40)]));
        let merged = Merged::of(&[&a, &b], None).unwrap();
        let types = TypeSums::of(&merged).unwrap();
        assert_eq!(types.names, ["dict", "int", "str"]);
        let bytes = |side: usize| types.sums[side].iter().map(|a| a.bytes).collect::<Vec<_>>();
        assert_eq!((bytes(0), bytes(1)), (vec![10, 5, 0], vec![40, 0, 3]));
    }

    #[test]
    fn a_profile_without_types_is_said_so() {
        let (a, b) = (profile(&[("dict", 10)]), profile(&[]));
        let merged = Merged::of(&[&a, &b], None).unwrap();
        assert!(matches!(TypeSums::of(&merged), Err(ViewError::NoTypes { .. })));
    }
}
