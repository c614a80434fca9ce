//! Looking addresses up, remembering what was found.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use crate::files::LookUpError;
use crate::library::Library;

/// A function at an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Name, demangled; never empty.
    pub function: String,
    /// Source file; empty: unknown.
    pub file: String,
    /// Line; 0: unknown.
    pub line: u32,
}

/// Libraries that are kept open: each takes some tens of megabytes if it has DWARF.
const OPEN: usize = 8;
/// Addresses whose symbols are remembered.
const REMEMBERED: usize = 1 << 16;

type Opened = Result<Library, Rc<LookUpError>>;

/// Looks addresses of libraries up.
pub struct Symbolizer {
    dirs: Vec<PathBuf>,
    /// The libraries that were asked last, the very last one first, under path and build id.
    libraries: VecDeque<((String, Vec<u8>), Opened)>,
    known: HashMap<(String, Vec<u8>, u64), Vec<Symbol>>,
}

impl Symbolizer {
    /// `dirs` are searched for libraries and debug files, before `/usr/lib/debug` and the
    /// libraries' own places.
    pub fn new(dirs: &[PathBuf]) -> Symbolizer {
        Symbolizer { dirs: dirs.to_vec(), libraries: VecDeque::new(), known: HashMap::new() }
    }

    /// The functions at `address` (in the library's own terms, inside the instruction: one below
    /// a return address), innermost first: inlined functions, then the one they were inlined
    /// into. Empty: nobody knows. `build_id` empty: the library had none.
    pub fn look_up(
        &mut self,
        path: &str,
        build_id: &[u8],
        address: u64,
    ) -> Result<Vec<Symbol>, Rc<LookUpError>> {
        let key = (path.to_owned(), build_id.to_vec(), address);
        if let Some(symbols) = self.known.get(&key) {
            return Ok(symbols.clone());
        }
        let symbols = match self.library(path, build_id) {
            Ok(library) => library.look_up(address),
            Err(error) => return Err(Rc::clone(error)),
        };
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, symbols.clone());
        Ok(symbols)
    }

    fn library(&mut self, path: &str, build_id: &[u8]) -> &Opened {
        let at = self.libraries.iter().position(|((p, b), _)| p == path && b == build_id);
        let entry = match at.and_then(|at| self.libraries.remove(at)) {
            Some(entry) => entry,
            None => {
                if self.libraries.len() >= OPEN {
                    self.libraries.pop_back();
                }
                let library = Library::open(path, build_id, &self.dirs).map_err(Rc::new);
                ((path.to_owned(), build_id.to_vec()), library)
            }
        };
        self.libraries.push_front(entry);
        // One was put there just now.
        &self.libraries[0].1
    }
}
