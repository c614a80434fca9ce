//! What a path can be weighed by.

use crate::model::{Amount, Path};

/// A figure of every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// In use at the highest point of what is in use.
    Peak,
    /// In use where the resident memory was highest.
    RssPeak,
    /// In use at the end.
    InUse,
    /// All allocations.
    Allocated,
    /// Temporary allocations.
    Temporary,
}

impl Weight {
    /// All of them, the usual one first.
    pub const ALL: [Weight; 5] =
        [Weight::Peak, Weight::InUse, Weight::Allocated, Weight::Temporary, Weight::RssPeak];

    /// A word for options and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Weight::Peak => "peak",
            Weight::RssPeak => "rss-peak",
            Weight::InUse => "in-use",
            Weight::Allocated => "allocated",
            Weight::Temporary => "temporary",
        }
    }

    /// The weight that a word stands for.
    pub fn of_name(name: &str) -> Option<Weight> {
        Weight::ALL.into_iter().find(|w| w.name() == name)
    }

    /// A few words for people: "in use at the peak".
    pub fn title(self) -> &'static str {
        match self {
            Weight::Peak => "in use at the peak",
            Weight::RssPeak => "in use at the highest RSS",
            Weight::InUse => "in use at the end",
            Weight::Allocated => "allocated",
            Weight::Temporary => "temporary",
        }
    }

    /// The figure of a path.
    pub fn of(self, path: &Path) -> Amount {
        match self {
            Weight::Peak => path.at_peak,
            Weight::RssPeak => path.at_rss_peak,
            Weight::InUse => path.in_use(),
            Weight::Allocated => path.allocated,
            Weight::Temporary => path.temporary,
        }
    }
}
