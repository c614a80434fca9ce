//! Addresses of symbols that a module exports, from the table that the dynamic linker uses. Also
//! stripped modules have it.
//!
//! Facts: elf(5): PT_DYNAMIC 2, DT_STRTAB 5, DT_SYMTAB 6, Elf64_Sym of 24 bytes {name 4, info 1,
//! other 1, section 2, value 8, size 8}. Linkers put the string table right behind the symbols.
//! glibc's loader turns the addresses in the dynamic section into absolute ones.

use strandline_image::{Image, Mapping};

use crate::modules::headers;

const DYNAMIC: u32 = 2;
const STRTAB: u64 = 5;
const SYMTAB: u64 = 6;
const SYMBOL: u64 = 24;
/// More entries than any dynamic section, and more symbols than any library has.
const MOST_ENTRIES: u64 = 1 << 10;
const MOST_SYMBOLS: u64 = 1 << 20;

/// The address of `name` in the module that `first`, its mapping of offset 0, begins.
pub fn symbol(image: &Image, first: &Mapping, name: &[u8]) -> Option<u64> {
    let headers = headers(image, first)?;
    let base = headers.base;
    let dynamic = headers.all.iter().find(|h| h.kind == DYNAMIC)?;
    let at = base.checked_add(dynamic.address)?;
    let (mut strings, mut symbols) = (None, None);
    for i in 0..MOST_ENTRIES {
        let (tag, value) = (image.word(at + 16 * i)?, image.word(at + 16 * i + 8)?);
        // Not yet absolute in a file.
        let value = if value < first.start { base.checked_add(value)? } else { value };
        match tag {
            0 => break,
            STRTAB => strings = Some(value),
            SYMTAB => symbols = Some(value),
            _ => {}
        }
    }
    let (strings, symbols) = (strings?, symbols?);
    let count = strings.checked_sub(symbols)? / SYMBOL;
    for i in 0..count.min(MOST_SYMBOLS) {
        let entry = symbols + SYMBOL * i;
        let (offset, value) = (image.half(entry)?, image.word(entry + 8)?);
        let mut text = vec![0; name.len() + 1];
        let same = value != 0
            && image.read(strings + offset as u64, &mut text)
            && text.strip_suffix(b"\0") == Some(name);
        if same {
            return base.checked_add(value);
        }
    }
    None
}
