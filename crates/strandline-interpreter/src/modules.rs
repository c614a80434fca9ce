//! The executable and its libraries: which file each is, and where its writable data lie, .bss
//! included.
//!
//! The kernel maps .bss as anonymous memory right behind the file's last part, where another
//! anonymous mapping may follow without a gap: only the program headers tell where it ends.

use strandline_image::{Image, Mapping, PAGE};

/// Writable memory of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleData {
    /// Path of its file, as the target sees it.
    pub path: String,
    /// Inode of its file.
    pub inode: u64,
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
}

/// More program headers than any library has.
const MOST_HEADERS: u16 = 256;
/// `PT_LOAD` (elf(5)).
const LOAD: u32 = 1;

/// A program header.
pub(crate) struct Header {
    /// `p_type`.
    pub kind: u32,
    /// `p_vaddr`, relative to the module's base.
    pub address: u64,
    /// `p_memsz`, bytes.
    pub memory: u64,
}

/// A module's program headers.
pub(crate) struct Headers {
    /// What has to be added to their addresses.
    pub base: u64,
    /// All of them.
    pub all: Vec<Header>,
}

/// The program headers of the module that `first`, its mapping of offset 0, begins.
pub(crate) fn headers(image: &Image, first: &Mapping) -> Option<Headers> {
    let at = first.start;
    let mut header = [0; 64];
    if !image.read(at, &mut header) || header[..6] != *b"\x7fELF\x02\x01" {
        return None;
    }
    let half = |i: usize| u16::from_le_bytes([header[i], header[i + 1]]);
    let offset = u64::from_le_bytes(header[32..40].try_into().ok()?);
    let (size, count) = (half(54), half(56));
    if size < 56 || count > MOST_HEADERS {
        return None;
    }
    let mut all = Vec::new();
    for i in 0..count as u64 {
        let p = at.checked_add(offset)?.checked_add(i * size as u64)?;
        let (kind, address) = (image.half(p)?, image.word(p + 16)?);
        all.push(Header { kind, address, memory: image.word(p + 40)? });
    }
    let low = all.iter().filter(|h| h.kind == LOAD).map(|h| h.address / PAGE * PAGE).min()?;
    Some(Headers { base: at.wrapping_sub(low), all })
}

/// Address after the last byte of the module that `first`, its mapping of offset 0, begins.
fn end_of(image: &Image, first: &Mapping) -> Option<u64> {
    let headers = headers(image, first)?;
    let loads = headers.all.iter().filter(|h| h.kind == LOAD);
    let high = loads.filter_map(|h| h.address.checked_add(h.memory)).max()?;
    headers.base.wrapping_add(high).checked_next_multiple_of(PAGE)
}

/// The writable data of every module with code, by address.
pub fn module_data(image: &Image) -> Vec<ModuleData> {
    let mut data = Vec::new();
    let maps = image.mappings();
    let is_file = |m: &Mapping| m.inode != 0 && m.path.starts_with('/') && !m.shared;
    let has_code = |inode| maps.iter().any(|m| m.inode == inode && m.execute);
    // The module that is being gone through: its inode and end.
    let mut module: Option<(u64, &str, u64)> = None;
    for m in maps {
        if is_file(m) && has_code(m.inode) {
            if m.offset == 0
                && module.is_none_or(|(inode, _, end)| inode != m.inode || m.start >= end)
            {
                let end = end_of(image, m).unwrap_or(0);
                module = Some((m.inode, &m.path, end));
            }
            if m.write {
                let (path, inode) = (m.path.clone(), m.inode);
                data.push(ModuleData { path, inode, start: m.start, end: m.end });
            }
        } else if let Some((inode, path, end)) = module {
            if m.is_anonymous() && m.path.is_empty() && m.write && m.start < end {
                let end = end.min(m.end);
                data.push(ModuleData { path: path.to_owned(), inode, start: m.start, end });
            }
        }
    }
    data
}

impl ModuleData {
    /// Its copied bytes, by address.
    pub fn pieces<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = (u64, &'a [u8])> {
        image.slices(self.start, self.end)
    }

    /// Its aligned words, with their addresses.
    pub fn words<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.pieces(image).flat_map(|(start, bytes)| words(start, bytes))
    }
}

/// The aligned words of `bytes`, which start at `start`, with their addresses.
pub fn words(start: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let skip = (start.wrapping_neg() % 8) as usize;
    let aligned = bytes.get(skip..).unwrap_or_default();
    aligned.chunks_exact(8).enumerate().map(move |(i, word)| {
        let value = u64::from_le_bytes(word.try_into().unwrap_or_default());
        (start + skip as u64 + 8 * i as u64, value)
    })
}
