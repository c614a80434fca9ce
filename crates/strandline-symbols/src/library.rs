//! One library, ready to be asked.

use std::path::{Path, PathBuf};

use addr2line::Loader;

use crate::files::{self, Files, LookUpError};
use crate::symbolizer::Symbol;
use crate::table::{demangle, underscores, Table};

/// Inlined functions that are told of one address, at most: deeper nesting is a broken file.
const DEEPEST: usize = 256;

/// A library and what tells about its code.
pub(crate) struct Library {
    /// The debug file's DWARF, or the library's own.
    lines: Option<Loader>,
    /// Symbol tables of the debug file and of the library.
    tables: Vec<Table>,
}

impl Library {
    /// Finds and reads the files of a library.
    pub(crate) fn open(
        path: &str,
        build_id: &[u8],
        dirs: &[PathBuf],
    ) -> Result<Library, LookUpError> {
        let Files { library, debug } = files::find(path, build_id, dirs)?;
        let mut opened = Library { lines: None, tables: Vec::new() };
        let mut problem = None;
        for file in debug.iter().chain(&library) {
            match Table::read(file) {
                Ok(table) => opened.tables.push(table),
                Err(cause) => {
                    problem =
                        Some(LookUpError::Unreadable { path: file.display().to_string(), cause });
                }
            }
        }
        opened.lines = debug.or(library).and_then(|file| load(&file, dirs));
        match problem {
            Some(problem) if opened.tables.is_empty() => Err(problem),
            _ => Ok(opened),
        }
    }

    /// The functions at an address, innermost first; empty: nothing is known.
    pub(crate) fn look_up(&self, address: u64) -> Vec<Symbol> {
        let mut symbols = self.by_lines(address).unwrap_or_default();
        let named = self.tables.iter().filter_map(|t| t.name(address));
        let named = named.min_by_key(|n| underscores(n)).map(demangle);
        match (symbols.last_mut(), named) {
            // DWARF has one name of a function, and libraries' internal ones at times:
            // `__libc_malloc` for `malloc`.
            (Some(outermost), Some(name))
                if outermost.function.is_empty()
                    || underscores(&name) < underscores(&outermost.function) =>
            {
                outermost.function = name;
            }
            (None, Some(function)) => {
                symbols.push(Symbol { function, ..Symbol::default() });
            }
            _ => {}
        }
        symbols.retain(|s| !s.function.is_empty());
        symbols
    }

    fn by_lines(&self, address: u64) -> Option<Vec<Symbol>> {
        let mut frames = self.lines.as_ref()?.find_frames(address).ok()?;
        let mut symbols = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let function = frame.function.as_ref().and_then(|f| f.demangle().ok());
            let function = function.map(|f| f.into_owned()).unwrap_or_default();
            let (file, line) = match frame.location {
                Some(l) => (l.file.unwrap_or_default().to_owned(), l.line.unwrap_or(0)),
                None => Default::default(),
            };
            symbols.push(Symbol { function, file, line });
            if symbols.len() >= DEEPEST {
                break;
            }
        }
        Some(symbols)
    }
}

fn load(file: &Path, dirs: &[PathBuf]) -> Option<Loader> {
    // A file whose DWARF can't be read may still have a symbol table that can.
    Loader::new_with_sup(file, files::shared_debug_file(file, dirs)).ok()
}
