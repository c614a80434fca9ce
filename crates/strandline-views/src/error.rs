//! Why a view can't be made: something was asked for that the profile doesn't have.

/// One line for people, which says what there is instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// No process of the profile has this id.
    #[error("the profile has no process {pid}; it has {known}")]
    NoProcess {
        /// The id that was asked for.
        pid: u32,
        /// Those that there are, as text.
        known: String,
    },
    /// No thread has this name or id.
    #[error("the profile has no thread {name:?}; it has {known}")]
    NoThread {
        /// What was asked for.
        name: String,
        /// Those that there are, as text.
        known: String,
    },
    /// The profile says nothing of types.
    #[error(
        "{run} says nothing of types: they are looked up at the end of a run with \
         strandline run --stacks --types"
    )]
    NoTypes {
        /// Which profile: its command.
        run: String,
    },
    /// No file's name ends like this.
    #[error("nothing was allocated in a file {name:?}; the files with the most are {known}")]
    NoFile {
        /// What was asked for.
        name: String,
        /// Those with the most, as text.
        known: String,
    },
}

/// At most this many names are listed in an error.
const NAMED: usize = 8;

/// Names as a list of readable length.
pub(crate) fn named(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<String> = names.into_iter().collect();
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    if text.is_empty() {
        text.push_str("none");
    }
    text
}
