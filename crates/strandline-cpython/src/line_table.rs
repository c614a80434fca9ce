//! From an offset in a code object's bytecode to its line, without the interpreter.
//!
//! `PyCode_Addr2Line` reads the table from its start for every question, which makes a module
//! that runs once from top to bottom quadratic. A [`Cursor`] stays where the last question
//! ended, and goes on from there.

/// How the bytes at `co_lnotab` or `co_linetable` are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineTable {
    /// Up to 3.9: pairs of a step in the bytecode and a step in the lines
    /// (Objects/lnotab_notes.txt).
    Pairs {
        /// Steps in the lines are signed: 3.6 and later.
        signed: bool,
    },
    /// 3.10: pairs of a range's length in bytes and a step in the lines, -128 for no line
    /// (PEP 626, Objects/lnotab_notes.txt).
    Ranges,
    /// 3.11 and later: the location table (PEP 657, Objects/locations.md).
    Locations,
}

impl LineTable {
    /// The highest line that the table of a code object names.
    pub fn last_line(self, first_line: i32, table: &[u8]) -> i32 {
        let mut at = Cursor::new(first_line);
        let mut last = first_line;
        // Every turn reads an entry, or more.
        while (at.read as usize) < table.len() {
            let before = at.read;
            let next = match (self, table.get(before as usize)) {
                (LineTable::Pairs { .. }, Some(&bytes)) => at.start.saturating_add(bytes as i32),
                _ => at.end,
            };
            last = last.max(at.line_at(self, first_line, table, next));
            if at.read == before {
                break;
            }
        }
        last
    }
}

/// A place in a line table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Bytes of the table that were read.
    read: u32,
    /// First byte of the bytecode that the last entry speaks of.
    start: i32,
    /// First byte of the bytecode after it.
    end: i32,
    /// Sum of the steps so far, `co_firstlineno` included.
    computed: i32,
    /// Line of `start..end`, -1 if it has none.
    line: i32,
}

impl Cursor {
    /// In front of the first entry of a code object's table.
    pub const fn new(first_line: i32) -> Self {
        Cursor { read: 0, start: 0, end: 0, computed: first_line, line: first_line }
    }

    /// The line of the instruction at `offset` (bytes; negative: before the first instruction),
    /// as `PyCode_Addr2Line` gives it: -1 for none. `first_line` is the code's
    /// `co_firstlineno`. Whatever the table holds, this ends after at most two reads of it.
    pub fn line_at(
        &mut self,
        format: LineTable,
        first_line: i32,
        table: &[u8],
        offset: i32,
    ) -> i32 {
        if offset < 0 {
            // Not yet started (codeobject.c, 3.10 and later). Before, -1 found the first line.
            return first_line;
        }
        if offset < self.start || self.read as usize > table.len() {
            *self = Cursor::new(first_line);
        }
        match format {
            LineTable::Pairs { signed } => self.pairs(signed, table, offset),
            LineTable::Ranges => self.ranges(table, offset),
            LineTable::Locations => self.locations(table, offset),
        }
    }

    fn next(&mut self, table: &[u8]) -> Option<u8> {
        let byte = *table.get(self.read as usize)?;
        self.read += 1;
        Some(byte)
    }

    fn pairs(&mut self, signed: bool, table: &[u8], offset: i32) -> i32 {
        // `start` is where the line of `computed` begins.
        while let Some(&[bytes, lines]) = table.get(self.read as usize..self.read as usize + 2) {
            let next = self.start.saturating_add(bytes as i32);
            if next > offset {
                break;
            }
            self.start = next;
            let step = if signed { lines as i8 as i32 } else { lines as i32 };
            self.computed = self.computed.wrapping_add(step);
            self.read += 2;
        }
        self.computed
    }

    fn ranges(&mut self, table: &[u8], offset: i32) -> i32 {
        while self.end <= offset {
            let (Some(bytes), Some(lines)) = (self.next(table), self.next(table)) else {
                return -1;
            };
            self.start = self.end;
            self.end = self.end.saturating_add(bytes as i32);
            self.line = match lines as i8 {
                -128 => -1,
                step => {
                    self.computed = self.computed.wrapping_add(step as i32);
                    self.computed
                }
            };
        }
        self.line
    }

    fn locations(&mut self, table: &[u8], offset: i32) -> i32 {
        /// A code unit, bytes.
        const UNIT: i32 = 2;
        while self.end <= offset {
            let Some(first) = self.next(table) else { return -1 };
            let units = (first & 7) as i32 + 1;
            let code = first >> 3 & 15;
            let step = match code {
                10..=12 => code as i32 - 10,
                13 | 14 => self.signed_varint(table),
                _ => 0,
            };
            // The columns follow, in bytes without the highest bit.
            while table.get(self.read as usize).is_some_and(|byte| byte & 0x80 == 0) {
                self.read += 1;
            }
            self.start = self.end;
            self.end = self.end.saturating_add(units * UNIT);
            self.computed = self.computed.wrapping_add(step);
            self.line = if code == 15 { -1 } else { self.computed };
        }
        self.line
    }

    /// Six bits a byte, lowest first; bit 6: more follow; bit 0 of the value is its sign.
    fn signed_varint(&mut self, table: &[u8]) -> i32 {
        let mut value = 0u32;
        let mut shift = 0;
        while let Some(byte) = self.next(table) {
            value |= ((byte & 63) as u32).checked_shl(shift).unwrap_or(0);
            shift += 6;
            if byte & 64 == 0 {
                break;
            }
        }
        let magnitude = (value >> 1) as i32;
        if value & 1 != 0 {
            -magnitude
        } else {
            magnitude
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn pairs_step_by_bytes_and_lines() {
        // 6 bytes of line 10, 8 of line 12, and a step back to 9 that only a signed table has.
        let table = [6, 2, 8, 0xfd];
        let mut at = Cursor::new(10);
        let format = LineTable::Pairs { signed: true };
        let lines: Vec<i32> =
            [0, 5, 6, 13, 14, 100].iter().map(|&o| at.line_at(format, 10, &table, o)).collect();
        assert_eq!(lines, vec![10, 10, 12, 12, 9, 9]);
        assert_eq!(at.line_at(format, 10, &table, 4), 10, "backwards starts anew");
        let unsigned = LineTable::Pairs { signed: false };
        assert_eq!(Cursor::new(10).line_at(unsigned, 10, &table, 20), 12 + 0xfd);
    }

    #[test]
    fn ranges_may_have_no_line() {
        let table = [4, 1, 2, 0x80, 6, 3];
        let mut at = Cursor::new(1);
        let lines: Vec<i32> = [-1, 0, 3, 4, 6, 11, 12]
            .iter()
            .map(|&o| at.line_at(LineTable::Ranges, 1, &table, o))
            .collect();
        assert_eq!(lines, vec![1, 2, 2, -1, 5, 5, -1]);
    }

    #[test]
    fn a_broken_table_ends() {
        // A varint whose end is missing, and one that is too long.
        for table in [&[0x80 | 13 << 3, 0x7f][..], &[0xf0; 40], &[0x7f; 40], &[]] {
            for offset in [0, 2, 400, i32::MAX] {
                Cursor::new(7).line_at(LineTable::Locations, 7, table, offset);
                Cursor::new(7).line_at(LineTable::Ranges, 7, table, offset);
                Cursor::new(7).line_at(LineTable::Pairs { signed: true }, 7, table, offset);
            }
        }
    }
}
