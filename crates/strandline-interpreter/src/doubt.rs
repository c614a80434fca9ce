//! What was read and can't be right.

use std::fmt;

/// Something that should hold and doesn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Address of the structure.
    pub address: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}: {}", self.address, self.what)
    }
}

/// Doubts that are kept; the rest is counted only.
const KEPT: usize = 100;

/// Doubts in the order they came up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubts {
    kept: Vec<Doubt>,
    count: usize,
}

impl Doubts {
    /// Adds one.
    pub fn add(&mut self, address: u64, what: &'static str) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(Doubt { address, what });
        }
    }

    /// Adds all of another list.
    pub fn append(&mut self, other: Doubts) {
        self.count += other.count;
        let room = KEPT - self.kept.len();
        self.kept.extend(other.kept.into_iter().take(room));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first of them.
    pub fn list(&self) -> &[Doubt] {
        &self.kept
    }
}
