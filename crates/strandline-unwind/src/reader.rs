//! Bytes of a section, and reading them front to back. `None`: the bytes end too early, or
//! don't mean anything. Nothing here reads outside the slice it was given.

/// Value is absent (Linux Standard Base, "DWARF Exception Header Encoding").
pub(crate) const OMIT: u8 = 0xff;
const PC_RELATIVE: u8 = 0x10;
const DATA_RELATIVE: u8 = 0x30;
const INDIRECT: u8 = 0x80;

/// Bytes, and the address at which the process has them.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Address of the first one: what pc-relative values in them refer to.
    pub address: u64,
}

impl<'a> Section<'a> {
    /// `length` bytes from `offset`.
    pub(crate) fn part(&self, offset: usize, length: usize) -> Option<Section<'a>> {
        let bytes = self.bytes.get(offset..offset.checked_add(length)?)?;
        Some(Section { bytes, address: self.address.wrapping_add(offset as u64) })
    }
}

/// Reads a section front to back.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    section: Section<'a>,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(section: Section<'a>) -> Self {
        Reader { section, at: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// What is left.
    pub(crate) fn rest(&self) -> Option<Section<'a>> {
        self.section.part(self.at, self.section.bytes.len().checked_sub(self.at)?)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.section.bytes.len()
    }

    /// Goes on at byte `at`.
    pub(crate) fn seek(&mut self, at: usize) -> Option<()> {
        if at > self.section.bytes.len() {
            return None;
        }
        self.at = at;
        Some(())
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: u64) -> Option<Section<'a>> {
        let length = usize::try_from(length).ok()?;
        let part = self.section.part(self.at, length)?;
        self.at += length;
        Some(part)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N as u64)?.bytes.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// LEB128 (DWARF 5, 7.6); bits above the 64th are dropped.
    fn leb(&mut self) -> Option<(u64, u32, u8)> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.u8()?;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            shift = shift.saturating_add(7);
            if byte & 0x80 == 0 {
                return Some((value, shift, byte));
            }
        }
    }

    pub(crate) fn uleb(&mut self) -> Option<u64> {
        self.leb().map(|(value, ..)| value)
    }

    pub(crate) fn sleb(&mut self) -> Option<i64> {
        let (value, shift, last) = self.leb()?;
        let negative = last & 0x40 != 0 && shift < 64;
        Some(if negative { (value | (!0u64 << shift)) as i64 } else { value as i64 })
    }

    /// A pointer in the given encoding; `data` is what data-relative ones are relative to
    /// (Linux Standard Base, "DWARF Exception Header Encoding"). Indirect ones aren't followed:
    /// only personality routines are stored so, and nobody asks for them.
    pub(crate) fn pointer(&mut self, encoding: u8, data: u64) -> Option<u64> {
        let here = self.section.address.wrapping_add(self.at as u64);
        let value = self.value(encoding)?;
        let base = match encoding & 0x70 {
            0 => 0,
            PC_RELATIVE => here,
            DATA_RELATIVE => data,
            _ => return None,
        };
        (encoding & INDIRECT == 0).then(|| value.wrapping_add(base))
    }

    /// Goes past a pointer without asking where it points to.
    pub(crate) fn skip_pointer(&mut self, encoding: u8) -> Option<()> {
        if encoding == OMIT {
            return Some(());
        }
        self.value(encoding).map(|_| ())
    }

    /// A number in the format that the low four bits of `encoding` tell.
    pub(crate) fn value(&mut self, encoding: u8) -> Option<u64> {
        Some(match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => self.u64()?,
            0x01 => self.uleb()?,
            0x02 => u64::from(self.u16()?),
            0x03 => u64::from(self.u32()?),
            0x09 => self.sleb()? as u64,
            0x0a => self.u16()? as i16 as i64 as u64,
            0x0b => self.u32()? as i32 as i64 as u64,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader<'_> {
        Reader::new(Section { bytes, address: 0x1000 })
    }

    #[test]
    fn leb_examples_of_the_standard() {
        // DWARF 5, tables 7.7 and 7.8.
        assert_eq!(reader(&[0xb9, 0x64]).uleb(), Some(12857));
        assert_eq!(reader(&[0x7f, 0]).uleb(), Some(127));
        assert_eq!(reader(&[0xff, 0x7e]).sleb(), Some(-129));
        assert_eq!(reader(&[0x80, 0x7f]).sleb(), Some(-128));
        assert_eq!(reader(&[0xff, 0]).sleb(), Some(127));
        assert_eq!(reader(&[0x80]).uleb(), None);
        assert_eq!(reader(&[0x80; 20]).sleb(), None);
    }

    #[test]
    fn pointers_are_relative_to_what_they_say() {
        assert_eq!(reader(&[0xff; 4]).pointer(0x1b, 0), Some(0xfff));
        assert_eq!(reader(&[2, 0, 0, 0]).pointer(0x3b, 0x5000), Some(0x5002));
        assert_eq!(reader(&[1; 8]).pointer(0, 7), Some(0x0101_0101_0101_0101));
        assert_eq!(reader(&[1; 8]).pointer(0x9b, 0), None);
        assert_eq!(reader(&[1; 3]).pointer(0x1b, 0), None);
    }
}
