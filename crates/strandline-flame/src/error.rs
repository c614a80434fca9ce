//! What can go wrong.

use std::fmt;
use std::io;

/// Why a page could not be written.
#[derive(Debug)]
pub enum FlameError {
    /// The system says no.
    Io(io::Error),
    /// The profile has more of something than the page's data can number (2³² − 1).
    TooLarge(&'static str),
}

impl fmt::Display for FlameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlameError::Io(e) => write!(f, "{e}"),
            FlameError::TooLarge(what) => write!(f, "the profile has too many {what} for one page"),
        }
    }
}

impl std::error::Error for FlameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FlameError::Io(e) => Some(e),
            FlameError::TooLarge(_) => None,
        }
    }
}

impl From<io::Error> for FlameError {
    fn from(e: io::Error) -> Self {
        FlameError::Io(e)
    }
}

/// `n` as an index of the page's data.
pub(crate) fn index(n: usize, what: &'static str) -> Result<u32, FlameError> {
    u32::try_from(n).map_err(|_| FlameError::TooLarge(what))
}
