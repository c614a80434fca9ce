//! The views as text for a terminal.

mod csv;
mod diff;
mod grid;
mod lines;
mod names;
mod report;
mod run;
mod stats;
mod table;
mod tree;
mod words;

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};

pub use self::csv::table as table_csv;
pub use self::diff::render as diff;
pub use self::lines::render as lines;
pub use self::report::render as report;
pub use self::stats::render as stats;
pub use self::table::render as table;
pub use self::tree::render as tree;

/// How text is to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Columns of a line.
    pub width: usize,
    /// With colours, as ANSI sequences.
    pub colour: bool,
    /// With lines between the levels of a tree.
    pub boxes: bool,
    /// Files beneath it are shown relative to it.
    pub cwd: Option<PathBuf>,
    /// Name of the profile's file, for commands that the reader may want next.
    pub file: String,
}

impl Default for Look {
    fn default() -> Self {
        Look { width: 110, colour: false, boxes: false, cwd: None, file: "FILE".to_owned() }
    }
}

const HEADING: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const MORE: Style = AnsiColor::Red.on_default();
const LESS: Style = AnsiColor::Green.on_default();

impl Look {
    /// Text in a style, if there are colours.
    fn paint(&self, style: Style, text: &str) -> String {
        match self.colour && !text.is_empty() {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}
