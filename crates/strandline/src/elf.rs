//! What an executable file is made for: its architecture and its loader.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What the header of an executable says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A dynamically linked program for this machine; the agent can be preloaded.
    Dynamic,
    /// Linked statically: there is no loader that would preload anything.
    Static,
    /// Loaded by musl's loader.
    Musl,
    /// For another architecture, whose name this is.
    Other(String),
    /// Not an ELF file.
    NotElf,
}

/// Name of the architecture that strandline runs on.
pub const HERE: &str = std::env::consts::ARCH;

const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
const PT_INTERP: u32 = 3;
/// Longest name of a loader that is looked at, bytes.
const LOADER: usize = 256;

/// Looks at the header of `file`. Anything that is cut off or makes no sense is no ELF file.
pub fn kind(file: &File) -> io::Result<Kind> {
    let mut head = [0u8; 64];
    let n = read(file, &mut head, 0)?;
    let head = head.get(..n).unwrap_or(&[]);
    if !head.starts_with(b"\x7fELF") || n < 20 {
        return Ok(Kind::NotElf);
    }
    let machine = number(head, 18, 2) as u16;
    let is_64 = head.get(4) == Some(&2);
    let little = head.get(5) == Some(&1);
    if !(is_64 && little && machine == MACHINE) {
        return Ok(Kind::Other(name(machine, is_64, little)));
    }
    let (offset, size, count) = (number(head, 32, 8), number(head, 54, 2), number(head, 56, 2));
    for i in 0..count.min(512) {
        let mut entry = [0u8; 56];
        let at = offset.saturating_add(i * size);
        if read(file, &mut entry, at)? < entry.len() {
            return Ok(Kind::NotElf);
        }
        if number(&entry, 0, 4) as u32 == PT_INTERP {
            let mut loader = [0u8; LOADER];
            let n = read(file, &mut loader, number(&entry, 8, 8))?;
            let len = n.min(number(&entry, 32, 8) as usize);
            let musl = loader.get(..len).unwrap_or(&[]).windows(7).any(|w| w == b"ld-musl");
            return Ok(if musl { Kind::Musl } else { Kind::Dynamic });
        }
    }
    Ok(Kind::Static)
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, at.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The little-endian number of `len` bytes at `at`; 0 outside.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let found = bytes.get(at..at + len).unwrap_or(&[]);
    found.iter().rev().fold(0, |n, b| n << 8 | *b as u64)
}

fn name(machine: u16, is_64: bool, little: bool) -> String {
    let machine = if little { machine } else { machine.swap_bytes() };
    let known = match machine {
        3 => "x86 (32 bits)",
        40 => "arm (32 bits)",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        21 => "powerpc64",
        22 => "s390x",
        _ => return format!("another machine (ELF number {machine})"),
    };
    if machine == 62 && !is_64 {
        return "x32".to_owned();
    }
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn kind_of(bytes: &[u8]) -> Kind {
        let made = crate::shared::anonymous_file(&std::env::temp_dir()).unwrap();
        (&made).write_all(bytes).unwrap();
        kind(&made).unwrap()
    }

    fn elf(machine: u16, class: u8, loader: Option<&str>) -> Vec<u8> {
        let mut b = vec![0u8; 64 + 56];
        b[..4].copy_from_slice(b"\x7fELF");
        (b[4], b[5]) = (class, 1);
        b[18..20].copy_from_slice(&machine.to_le_bytes());
        b[32] = 64;
        b[54] = 56;
        b[56] = 1;
        if let Some(loader) = loader {
            b[64] = 3;
            b[64 + 8] = 120;
            b[64 + 32] = loader.len() as u8;
            b.extend_from_slice(loader.as_bytes());
        }
        b
    }

    #[test]
    fn kinds() {
        let here = MACHINE;
        assert_eq!(kind_of(&elf(here, 2, Some("/lib64/ld-linux-x86-64.so.2"))), Kind::Dynamic);
        assert_eq!(kind_of(&elf(here, 2, Some("/lib/ld-musl-x86_64.so.1"))), Kind::Musl);
        assert_eq!(kind_of(&elf(here, 2, None)), Kind::Static);
        assert_eq!(kind_of(&elf(40, 1, None)), Kind::Other("arm (32 bits)".into()));
        assert_eq!(kind_of(&elf(62, 1, None)), Kind::Other("x32".into()));
        let unknown = "another machine (ELF number 999)".to_owned();
        assert_eq!(kind_of(&elf(999, 2, None)), Kind::Other(unknown));
        assert_eq!(kind_of(b"#!/bin/sh\n"), Kind::NotElf);
        assert_eq!(kind_of(b""), Kind::NotElf);
        assert_eq!(kind_of(b"\x7fELF"), Kind::NotElf);
        assert_eq!(kind_of(&elf(here, 2, None)[..70]), Kind::NotElf);
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(kind(&own).unwrap(), Kind::Dynamic);
    }
}
