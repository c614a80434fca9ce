//! Why memory stays: from one or several censuses of a process, or from a profile by call path, to
//! causes in bytes, a verdict, and what would bring it back.
//!
//! Pure functions over values: it never looks at a process, prints nothing, and believes nothing
//! that the censuses don't say. What can't be told is said so.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod account;
mod causes;
mod growth;
mod heap_paths;
mod model;
mod pin_paths;
mod profile;
mod remedies;
mod verdict;

pub use account::{account, Account, Moment, Part};
pub use causes::causes;
pub use growth::did_nothing;
pub use heap_paths::heap_paths;
pub use model::{Cause, Explanation, PinReport, Remedy, Sure, Verdict, SCHEMA};
pub use pin_paths::{pin_paths, PinPath};
pub use profile::explain_profile;
pub use remedies::remedies;
pub use verdict::explain;

/// Bytes as MiB with one digit behind the point, for sentences.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

/// A number with commas.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(mib(1 << 19), "0.5 MiB");
    }
}
