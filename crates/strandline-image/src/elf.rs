//! What a core file says of itself: its segments and notes.
//!
//! Facts: elf(5), core(5); struct elf_prstatus and elf_prpsinfo (x86-64), include/linux/elfcore.h
//! and include/uapi/linux/elf.h. Everything is checked: nothing outside the bytes is read.

/// A piece of memory that the core file lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub start: u64,
    /// Bytes in memory.
    pub len: u64,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// Bytes in the file: what the core filter left out is missing.
    pub in_file: u64,
    /// `p_flags`: 4 read, 2 write, 1 execute.
    pub flags: u32,
}

/// A mapped file (`NT_FILE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedFile {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Its path.
    pub path: String,
}

/// A thread (`NT_PRSTATUS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// Thread id.
    pub tid: i32,
    /// Stack pointer.
    pub stack_pointer: u64,
    /// Base of thread-local storage.
    pub tls: u64,
}

/// What a core file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Core {
    /// Memory, in the order of the file.
    pub segments: Vec<Segment>,
    /// Mapped files.
    pub files: Vec<MappedFile>,
    /// Threads; the first is the one that died.
    pub threads: Vec<Registers>,
    /// Command line, cut to 80 bytes by the kernel.
    pub command_line: String,
}

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PN_XNUM: u16 = 0xffff;
const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_FILE: u32 = 0x4649_4c45;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, at)?).ok()
}

/// Reads a core file's headers and notes, or says why it is none.
pub fn read(bytes: &[u8]) -> Result<Core, &'static str> {
    if bytes.get(..4) != Some(b"\x7fELF") {
        return Err("it is no ELF file");
    }
    if bytes.get(4..6) != Some(&[2, 1]) || u16_at(bytes, 18) != Some(EM_X86_64) {
        return Err("it is of another kind of machine");
    }
    if u16_at(bytes, 16) != Some(ET_CORE) {
        return Err("it is an ELF file, but no core file");
    }
    headers(bytes).ok_or("it is cut off within its headers")
}

fn headers(bytes: &[u8]) -> Option<Core> {
    bytes.get(..HEADER)?;
    let offset = usize_at(bytes, 32)?;
    let size = u16_at(bytes, 54)? as usize;
    let count = match u16_at(bytes, 56)? {
        // More than fit: the number is in the first section header (elf(5), PN_XNUM).
        PN_XNUM => u32_at(bytes, usize_at(bytes, 40)?.checked_add(44)?)? as usize,
        count => count as usize,
    };
    let mut core = Core::default();
    if size < PROGRAM_HEADER {
        return None;
    }
    for i in 0..count {
        let at = offset.checked_add(i.checked_mul(size)?)?;
        let Some(header) = bytes.get(at..at.checked_add(PROGRAM_HEADER)?) else {
            // Cut off: what came before is good.
            break;
        };
        let (kind, flags) = (u32_at(header, 0)?, u32_at(header, 4)?);
        let (offset, start) = (u64_at(header, 8)?, u64_at(header, 16)?);
        let (in_file, len) = (u64_at(header, 32)?, u64_at(header, 40)?);
        match kind {
            PT_LOAD => core.segments.push(Segment { start, len, offset, in_file, flags }),
            PT_NOTE => {
                let from = usize::try_from(offset).ok()?.min(bytes.len());
                let to = from.saturating_add(usize::try_from(in_file).ok()?).min(bytes.len());
                notes(&bytes[from..to], &mut core);
            }
            _ => {}
        }
    }
    Some(core)
}

fn notes(mut bytes: &[u8], core: &mut Core) {
    while let Some((kind, contents, rest)) = note(bytes) {
        match kind {
            NT_PRSTATUS => core.threads.extend(thread(contents)),
            NT_PRPSINFO => {
                let text = contents.get(56..136).unwrap_or_default();
                let text = text.split(|&b| b == 0).next().unwrap_or_default();
                core.command_line = String::from_utf8_lossy(text).trim_end().to_owned();
            }
            NT_FILE => core.files.extend(files(contents).unwrap_or_default()),
            _ => {}
        }
        bytes = rest;
    }
}

/// The first note: its type, its contents, and what follows.
fn note(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let name = u32_at(bytes, 0)? as usize;
    let len = u32_at(bytes, 4)? as usize;
    let start = 12usize.checked_add(name.checked_next_multiple_of(4)?)?;
    let end = start.checked_add(len)?;
    let next = start.checked_add(len.checked_next_multiple_of(4)?)?.min(bytes.len());
    Some((u32_at(bytes, 8)?, bytes.get(start..end)?, bytes.get(next..)?))
}

/// `struct elf_prstatus`: pr_pid at 32, pr_reg (struct user_regs_struct) at 112.
fn thread(note: &[u8]) -> Option<Registers> {
    const REGISTERS: usize = 112;
    Some(Registers {
        tid: u32_at(note, 32)? as i32,
        stack_pointer: u64_at(note, REGISTERS + 19 * 8)?,
        tls: u64_at(note, REGISTERS + 21 * 8)?,
    })
}

/// `NT_FILE`: count, page size, then {start, end, offset in pages} each, then the paths.
fn files(note: &[u8]) -> Option<Vec<MappedFile>> {
    let count = usize_at(note, 0)?;
    let page = u64_at(note, 8)?;
    let names = note.get(16usize.checked_add(count.checked_mul(24)?)?..)?;
    let mut files = Vec::new();
    for (i, name) in names.split(|&b| b == 0).take(count).enumerate() {
        let at = 16 + 24 * i;
        files.push(MappedFile {
            start: u64_at(note, at)?,
            end: u64_at(note, at + 8)?,
            offset: u64_at(note, at + 16)?.checked_mul(page)?,
            path: String::from_utf8_lossy(name).into_owned(),
        });
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core file with one segment of `memory` at 0x10000, and a note that maps a file.
    pub fn small(memory: &[u8]) -> Vec<u8> {
        let mut notes = Vec::new();
        let mut note = |kind: u32, contents: &[u8]| {
            notes.extend([5u32, contents.len() as u32, kind].map(u32::to_le_bytes).concat());
            notes.extend(b"CORE\0\0\0\0");
            notes.extend(contents);
            notes.resize(notes.len().next_multiple_of(4), 0);
        };
        let mut status = vec![0; 336];
        status[32] = 7;
        status[112 + 19 * 8] = 0x99;
        note(NT_PRSTATUS, &status);
        let words = [1u64, 4096, 0x10000, 0x11000, 2].map(u64::to_le_bytes).concat();
        note(NT_FILE, &[&words[..], b"/lib/x.so\0"].concat());
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[16] = 4;
        file[18] = 62;
        file[32] = 64;
        file[54] = 56;
        file[56] = 2;
        let data = 64 + 2 * 56;
        let header = |kind: u64, offset: usize, start: u64, len: usize| {
            [kind | 6 << 32, offset as u64, start, 0, len as u64, len as u64, 1]
                .map(u64::to_le_bytes)
                .concat()
        };
        file.extend(header(4, data, 0, notes.len()));
        file.extend(header(1, data + notes.len(), 0x10000, memory.len()));
        file.extend(&notes);
        file.extend(memory);
        file
    }

    #[test]
    fn a_small_core_is_read() {
        let core = read(&small(b"abcd")).unwrap_or_default();
        assert_eq!(core.segments.len(), 1);
        assert_eq!((core.segments[0].start, core.segments[0].in_file), (0x10000, 4));
        assert_eq!(core.threads, [Registers { tid: 7, stack_pointer: 0x99, tls: 0 }]);
        assert_eq!(core.files[0].path, "/lib/x.so");
        assert_eq!((core.files[0].offset, core.files[0].end), (8192, 0x11000));
        assert_eq!(read(b"\x7fELF"), Err("it is of another kind of machine"));
        assert!(read(b"no").is_err() && read(&[]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn broken_cores_are_survived(
            changes in proptest::collection::vec((0usize..1000, proptest::num::u8::ANY), 0..20),
            cut in 0usize..1000,
        ) {
            let mut file = small(&[1; 100]);
            for (at, byte) in changes {
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            file.truncate(cut.max(20));
            let _ = read(&file);
        }
    }
}
