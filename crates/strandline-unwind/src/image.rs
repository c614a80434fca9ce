//! A loaded object's program headers: where its unwind tables and its build id are in memory.

use libc::{Elf64_Ehdr, Elf64_Phdr};

use crate::entry;
use crate::reader::{Reader, Section};

/// A range of addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub start: usize,
    /// The one after the last.
    pub end: usize,
}

impl Range {
    /// True if `address` is in it.
    pub fn contains(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    fn bytes(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

/// Program headers of an object, and by how much it was moved when it was loaded.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    pub(crate) bias: usize,
    pub(crate) headers: &'a [Elf64_Phdr],
}

/// Where an object's unwind tables are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// `.eh_frame_hdr`, up to the end of the segment it is in; empty: there is none.
    pub(crate) header: Range,
    /// `.eh_frame`, up to the end of the segment it is in.
    pub(crate) frames: Range,
}

/// Longest build id that is kept: SHA-1 has 20 bytes, and linkers offer 32 at most.
pub(crate) const BUILD_ID: usize = 32;

impl<'a> Image<'a> {
    /// The object whose ELF header is at `start`.
    ///
    /// # Safety
    /// `start` is the first address of an object that is loaded and stays so for `'a`.
    pub(crate) unsafe fn at(start: usize, bias: usize) -> Option<Image<'a>> {
        if start % align_of::<Elf64_Ehdr>() != 0 {
            return None;
        }
        // SAFETY: the first page of a loaded object is mapped and readable (a file's first
        // segment starts with the ELF header in all that linkers make; if this is something
        // else, the magic number tells).
        let header = unsafe { &*(start as *const Elf64_Ehdr) };
        let [a, b, c, d, ..] = header.e_ident;
        let at = start.wrapping_add(header.e_phoff as usize);
        let count = usize::from(header.e_phnum);
        if [a, b, c, d] != *b"\x7fELF"
            || usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>()
            || at % align_of::<Elf64_Phdr>() != 0
            // They follow the header in all that linkers make: on the same, mapped page.
            || header.e_phoff > 0x1000 - (count.min(64) * size_of::<Elf64_Phdr>()) as u64
        {
            return None;
        }
        // SAFETY: they lie on the page of the header, as was just checked.
        let headers =
            unsafe { core::slice::from_raw_parts(at as *const Elf64_Phdr, count.min(64)) };
        Some(Image { bias, headers })
    }

    fn of_type(&self, kind: u32) -> impl Iterator<Item = &Elf64_Phdr> {
        self.headers.iter().filter(move |h| h.p_type == kind)
    }

    fn range(&self, header: &Elf64_Phdr) -> Range {
        let start = self.bias.wrapping_add(header.p_vaddr as usize);
        Range { start, end: start.wrapping_add(header.p_memsz as usize) }
    }

    /// First to last address.
    pub(crate) fn extent(&self) -> Range {
        let mut all = Range { start: usize::MAX, end: 0 };
        for header in self.of_type(libc::PT_LOAD) {
            let range = self.range(header);
            all = Range { start: all.start.min(range.start), end: all.end.max(range.end) };
        }
        all
    }

    /// From `address` to the end of the loaded, readable segment that holds it.
    fn segment_from(&self, address: usize) -> Option<Range> {
        let readable = |h: &&Elf64_Phdr| h.p_flags & libc::PF_R != 0;
        let range = self
            .of_type(libc::PT_LOAD)
            .filter(readable)
            .map(|h| self.range(h))
            .find(|r| r.contains(address))?;
        Some(Range { start: address, end: range.end })
    }

    /// The unwind tables; empty if there are none.
    pub(crate) fn tables(&self) -> Tables {
        self.find_tables().unwrap_or_default()
    }

    fn find_tables(&self) -> Option<Tables> {
        let header = self.of_type(libc::PT_GNU_EH_FRAME).next()?;
        let header = self.segment_from(self.range(header).start)?;
        // SAFETY: it is part of a loaded segment.
        let frames = entry::frames_address(unsafe { section(header) })?;
        Some(Tables { header, frames: self.segment_from(frames as usize)? })
    }

    /// Copies the build id (`NT_GNU_BUILD_ID`, ELF notes of type 3 named "GNU"); its length.
    pub(crate) fn build_id(&self, into: &mut [u8; BUILD_ID]) -> usize {
        for header in self.of_type(libc::PT_NOTE) {
            let range = self.range(header);
            let loaded = self.segment_from(range.start).is_some_and(|s| range.end <= s.end);
            if !loaded {
                continue;
            }
            // SAFETY: it is part of a loaded segment, as was just checked.
            let notes = unsafe { section(range) };
            let align = if header.p_align == 8 { 8 } else { 4 };
            if let Some(id) = find_build_id(notes, align) {
                if let Some(space) = into.get_mut(..id.len()) {
                    space.copy_from_slice(id);
                    return id.len();
                }
            }
        }
        0
    }
}

fn find_build_id(notes: Section<'_>, align: u64) -> Option<&[u8]> {
    let padded = |n: u32| u64::from(n).next_multiple_of(align);
    let mut reader = Reader::new(notes);
    loop {
        let (name, length, kind) = (reader.u32()?, reader.u32()?, reader.u32()?);
        // Names are padded to 4 bytes in notes of either alignment ("GNU\0" fits both).
        let name = reader.take(u64::from(name).next_multiple_of(4))?.bytes;
        if name == b"GNU\0" && kind == 3 {
            return reader.take(u64::from(length)).map(|s| s.bytes);
        }
        reader.take(padded(length))?;
    }
}

impl Tables {
    /// True if there are any.
    pub(crate) fn exist(&self) -> bool {
        self.header.bytes() != 0
    }

    /// The bytes of the two sections.
    ///
    /// # Safety
    /// The object they are of is loaded, and stays so for `'a`.
    pub(crate) unsafe fn sections<'a>(&self) -> (Section<'a>, Section<'a>) {
        // SAFETY: both are parts of loaded segments, as `find_tables` made sure, and the caller
        // vouches for the object.
        unsafe { (section(self.header), section(self.frames)) }
    }
}

/// The bytes in a range.
///
/// # Safety
/// The range is mapped, readable and doesn't change for `'a`.
unsafe fn section<'a>(range: Range) -> Section<'a> {
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { core::slice::from_raw_parts(range.start as *const u8, range.bytes()) };
    Section { bytes, address: range.start as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes() {
        let mut bytes = vec![4, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0];
        bytes.extend(b"GNU\0abcdefgh");
        bytes.extend([4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0]);
        bytes.extend(b"GNU\0xyz");
        let section = |bytes| Section { bytes, address: 0 };
        assert_eq!(find_build_id(section(&bytes), 4), Some(&b"xyz"[..]));
        assert_eq!(find_build_id(section(&bytes[..bytes.len() - 1]), 4), None);
        assert_eq!(find_build_id(section(&[0xff; 64]), 8), None);
    }
}
