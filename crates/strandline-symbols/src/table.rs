//! Functions by address, from an ELF symbol table.

use std::path::Path;

use object::{Object, ObjectSymbol, SymbolKind};

use crate::files;

/// A function of the symbol table.
struct Function {
    start: u64,
    end: u64,
    name: String,
}

/// All functions of a file, by address.
#[derive(Default)]
pub(crate) struct Table {
    functions: Vec<Function>,
    /// Length of the longest one: how far back a function that covers an address may start.
    longest: u64,
}

impl Table {
    /// Reads `.symtab` and `.dynsym`.
    pub(crate) fn read(file: &Path) -> Result<Table, String> {
        let bytes = files::map(file)?;
        let object = object::File::parse(&*bytes).map_err(|e| e.to_string())?;
        let mut functions: Vec<Function> = object
            .symbols()
            .chain(object.dynamic_symbols())
            .filter(|s| s.is_definition() && s.kind() == SymbolKind::Text && s.size() > 0)
            .filter_map(|s| {
                let (start, end) = (s.address(), s.address().checked_add(s.size())?);
                // `.symtab` may have versions after the name, as in `memcpy@@GLIBC_2.14`.
                let name = s.name().ok()?.split('@').next()?.to_owned();
                Some(Function { start, end, name })
            })
            .collect();
        // Of several names for the same code the shortest with fewest leading underscores is what
        // people call it (`malloc`, not `__libc_malloc`).
        let plain = |f: &Function| (underscores(&f.name), f.name.len());
        functions.sort_by(|a, b| {
            (a.start, a.end, plain(a), &a.name).cmp(&(b.start, b.end, plain(b), &b.name))
        });
        functions.dedup_by_key(|f| (f.start, f.end));
        let longest = functions.iter().map(|f| f.end - f.start).max().unwrap_or(0);
        Ok(Table { functions, longest })
    }

    /// Name of the function that covers `address`, as the table has it.
    pub(crate) fn name(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|f| f.start <= address);
        self.functions
            .get(..after)?
            .iter()
            .rev()
            .take_while(|f| address - f.start <= self.longest)
            .find(|f| address < f.end)
            .map(|f| f.name.as_str())
    }
}

/// Number of leading underscores: names with more of them are the more internal ones.
pub(crate) fn underscores(name: &str) -> usize {
    name.bytes().take_while(|&b| b == b'_').count()
}

/// A symbol's name as its language writes it.
pub(crate) fn demangle(name: &str) -> String {
    addr2line::demangle_auto(name.into(), None).into_owned()
}
