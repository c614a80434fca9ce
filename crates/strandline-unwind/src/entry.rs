//! Finding the entry of `.eh_frame` that covers an address, and reading its head.
//!
//! Formats: Linux Standard Base 5.0, "Exception Frames" and ".eh_frame_hdr"; DWARF 5, 6.4.1.

use crate::reader::{Reader, Section, OMIT};

/// Table entries of `.eh_frame_hdr` as every linker writes them: two signed 32-bit numbers
/// relative to the section's start (`DW_EH_PE_datarel | DW_EH_PE_sdata4`).
const SORTED_TABLE: u8 = 0x3b;

/// A frame description entry, with what it takes from its common information entry.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Address of the first instruction it covers.
    pub start: u64,
    /// Bytes of code it covers.
    pub length: u64,
    /// Factor of code offsets.
    pub(crate) code_factor: u64,
    /// Factor of data offsets.
    pub(crate) data_factor: i64,
    /// Encoding of addresses in its instructions.
    pub(crate) encoding: u8,
    /// Column of the return address.
    pub(crate) return_column: u64,
    /// The frame is one that the kernel made for a signal.
    pub(crate) signal: bool,
    /// Instructions that hold for the start of every function.
    pub(crate) initial: Section<'a>,
    /// Instructions of this one.
    pub(crate) program: Section<'a>,
}

/// Finds the entry that covers `pc`. `header` is `.eh_frame_hdr`, `frames` is `.eh_frame`; both
/// may be followed by other bytes.
pub fn find<'a>(header: Section<'a>, frames: Section<'a>, pc: u64) -> Option<Entry<'a>> {
    let entry = match search(header, pc) {
        Search::At(address) => {
            let offset = usize::try_from(address.checked_sub(frames.address)?).ok()?;
            read(frames, offset)?
        }
        Search::Nothing => return None,
        Search::NoTable => scan(frames, pc)?,
    };
    (pc.wrapping_sub(entry.start) < entry.length).then_some(entry)
}

/// Address of `.eh_frame`, as its header says.
pub fn frames_address(header: Section<'_>) -> Option<u64> {
    let mut reader = Reader::new(header);
    let [version, encoding] = [reader.u8()?, reader.u8()?];
    reader.take(2)?;
    (version == 1).then(|| reader.pointer(encoding, header.address)).flatten()
}

/// The header's sorted table: number of rows, and the bytes from its start.
fn table(header: Section<'_>) -> Option<(usize, Section<'_>)> {
    let mut reader = Reader::new(header);
    let version = reader.u8()?;
    let [frames, count, table] = [reader.u8()?, reader.u8()?, reader.u8()?];
    if version != 1 || count == OMIT || table != SORTED_TABLE {
        return None;
    }
    reader.skip_pointer(frames)?;
    let count = usize::try_from(reader.pointer(count, header.address)?).ok()?;
    Some((count, reader.rest()?))
}

/// What the header's table says.
enum Search {
    At(u64),
    Nothing,
    NoTable,
}

fn search(header: Section<'_>, pc: u64) -> Search {
    let Some((count, table)) = table(header) else { return Search::NoTable };
    let row = |index: usize| {
        let at = index.checked_mul(8)?;
        let mut reader = Reader::new(table.part(at, 8)?);
        let start = reader.pointer(SORTED_TABLE, header.address)?;
        Some((start, reader.pointer(SORTED_TABLE, header.address)?))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match row(middle) {
            None => return Search::Nothing,
            Some((start, _)) if start <= pc => low = middle + 1,
            Some(_) => high = middle,
        }
    }
    match low.checked_sub(1).and_then(row) {
        Some((_, entry)) => Search::At(entry),
        None => Search::Nothing,
    }
}

/// Goes through the entries one by one: what is left if a linker wrote no table.
fn scan(frames: Section<'_>, pc: u64) -> Option<Entry<'_>> {
    let mut offset = 0;
    loop {
        let (body, _) = body(frames, offset)?;
        if let Some(entry) = read(frames, offset) {
            if pc.wrapping_sub(entry.start) < entry.length {
                return Some(entry);
            }
        }
        offset = usize::try_from(body.address.wrapping_sub(frames.address)).ok()?;
        offset = offset.checked_add(body.bytes.len())?;
    }
}

/// The bytes of the entry at `offset` that follow its length, and the offset at which they
/// start; `None` at the end mark.
fn body(frames: Section<'_>, offset: usize) -> Option<(Section<'_>, usize)> {
    let mut reader = Reader::new(frames);
    reader.seek(offset)?;
    let length = match reader.u32()? {
        0 => return None,
        0xffff_ffff => reader.u64()?,
        length => u64::from(length),
    };
    let start = reader.position();
    Some((reader.take(length)?, start))
}

/// What a common information entry says.
struct Common<'a> {
    code_factor: u64,
    data_factor: i64,
    return_column: u64,
    encoding: u8,
    augmented: bool,
    signal: bool,
    initial: Section<'a>,
}

fn common(frames: Section<'_>, offset: usize) -> Option<Common<'_>> {
    let (body, _) = body(frames, offset)?;
    let mut reader = Reader::new(body);
    if reader.u32()? != 0 {
        return None;
    }
    let version = reader.u8()?;
    if version != 1 && version != 3 {
        return None;
    }
    let text = reader.rest()?;
    let end = text.bytes.iter().position(|&b| b == 0)?;
    let augmentation = reader.take(end as u64)?.bytes;
    reader.u8()?;
    let code_factor = reader.uleb()?;
    let data_factor = reader.sleb()?;
    let return_column = if version == 1 { u64::from(reader.u8()?) } else { reader.uleb()? };
    let mut c = Common {
        code_factor,
        data_factor,
        return_column,
        encoding: 0,
        augmented: false,
        signal: false,
        initial: body,
    };
    if let Some((&b'z', letters)) = augmentation.split_first() {
        c.augmented = true;
        let length = reader.uleb()?;
        let mut data = Reader::new(reader.take(length)?);
        for letter in letters {
            match letter {
                b'R' => c.encoding = data.u8()?,
                b'L' => _ = data.u8()?,
                b'P' => {
                    let encoding = data.u8()?;
                    data.skip_pointer(encoding)?;
                }
                b'S' => c.signal = true,
                // The length tells where the instructions start: what an unknown letter means
                // is of no interest, but letters after it can't be read.
                _ => break,
            }
        }
    } else if !augmentation.is_empty() {
        return None;
    }
    c.initial = reader.rest()?;
    Some(c)
}

/// Reads the frame description entry at `offset`; `None` if it is something else.
pub(crate) fn read(frames: Section<'_>, offset: usize) -> Option<Entry<'_>> {
    let (body, at) = body(frames, offset)?;
    let mut reader = Reader::new(body);
    // Distance from this very field back to the common entry.
    let back = reader.u32()? as usize;
    if back == 0 {
        return None;
    }
    let common = common(frames, at.checked_sub(back)?)?;
    let start = reader.pointer(common.encoding, 0)?;
    let length = reader.value(common.encoding)?;
    if common.augmented {
        let length = reader.uleb()?;
        reader.take(length)?;
    }
    Some(Entry {
        start,
        length,
        code_factor: common.code_factor,
        data_factor: common.data_factor,
        encoding: common.encoding,
        return_column: common.return_column,
        signal: common.signal,
        initial: common.initial,
        program: reader.rest()?,
    })
}
