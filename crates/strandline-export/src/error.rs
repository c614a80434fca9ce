//! Why an export failed.

use std::io;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file could not be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The Parquet writer says no.
    #[error("the Parquet file could not be written: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// No process of the profile has the id that was asked for.
    #[error("the profile has no process {pid}; it has {}", list(.known))]
    NoSuchProcess {
        /// The id that was asked for.
        pid: u32,
        /// The ids that are there.
        known: Vec<u32>,
    },
}

impl From<csv::Error> for ExportError {
    fn from(e: csv::Error) -> Self {
        ExportError::Io(e.into())
    }
}

impl From<serde_json::Error> for ExportError {
    fn from(e: serde_json::Error) -> Self {
        ExportError::Io(e.into())
    }
}

fn list(pids: &[u32]) -> String {
    /// More would not help whoever mistyped one.
    const SHOWN: usize = 20;
    let mut words: Vec<String> = pids.iter().take(SHOWN).map(u32::to_string).collect();
    if words.is_empty() {
        return "none".into();
    }
    if pids.len() > SHOWN {
        words.push(format!("{} more", pids.len() - SHOWN));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_processes_there_are() {
        let text = |known| ExportError::NoSuchProcess { pid: 7, known }.to_string();
        assert_eq!(text(vec![]), "the profile has no process 7; it has none");
        assert_eq!(text(vec![8, 9]), "the profile has no process 7; it has 8, 9");
        assert!(text((10..40).collect()).ends_with("29, 10 more"));
    }
}
