//! Source files: where their text comes from, and how it becomes lines.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where source text comes from.
pub trait Sources {
    /// The bytes of a source file, by the name that the code object gives it; `None` if there is
    /// no such file.
    fn bytes(&self, file: &str) -> Option<Vec<u8>>;
}

/// The files themselves; relative names start from the current directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files;

/// Largest source file that is read, bytes. A name may come from a damaged capture, and nobody
/// reads a table of more.
const LARGEST: u64 = 64 << 20;

impl Sources for Files {
    fn bytes(&self, file: &str) -> Option<Vec<u8>> {
        let path = Path::new(file);
        // Opening anything but a file (a FIFO, say) could hang.
        let meta = std::fs::metadata(path).ok()?;
        if !meta.is_file() {
            return None;
        }
        let mut bytes = Vec::with_capacity(meta.len().min(LARGEST) as usize + 1);
        File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Source text as lines, the first of which may have any number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    first: u32,
    lines: Vec<String>,
}

impl Source {
    /// Lines of a file or of a `-c` string.
    pub fn from_bytes(bytes: &[u8]) -> Source {
        Source::from_text(&decode(bytes), 1)
    }

    /// Lines of a text whose first line has the number `first`.
    pub(crate) fn from_text(text: &str, first: u32) -> Source {
        Source { first: first.max(1), lines: split(text) }
    }

    /// Line `number`, without its end.
    pub fn line(&self, number: u32) -> Option<&str> {
        let i = number.checked_sub(self.first)?;
        self.lines.get(i as usize).map(String::as_str)
    }

    /// The lines from `number` on; empty if there is no such line.
    pub(crate) fn from(&self, number: u32) -> &[String] {
        let i = number.checked_sub(self.first).map(|i| i as usize);
        i.and_then(|i| self.lines.get(i..)).unwrap_or(&[])
    }
}

/// UTF-8 with anything invalid replaced, or Latin-1 if the file says so (PEP 263): the two that
/// cover practically all Python source.
fn decode(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let latin = bytes.split(|b| *b == b'\n').take(2).filter_map(coding).next().is_some_and(|c| {
        let c = c.to_ascii_lowercase().replace('_', "-");
        ["latin-1", "latin1", "iso-8859-1", "iso8859-1", "iso-8859-15", "cp1252", "windows-1252"]
            .contains(&c.as_str())
    });
    if latin {
        bytes.iter().map(|b| char::from(*b)).collect()
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// The name in `# -*- coding: NAME -*-`.
fn coding(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let comment = line.trim_start_matches([' ', '\t', '\x0c']).strip_prefix('#')?;
    let after = comment.get(comment.find("coding")? + "coding".len()..)?;
    let name = after.strip_prefix([':', '='])?.trim_start_matches([' ', '\t']);
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    Some(name.get(..end.unwrap_or(name.len()))?.to_owned())
}

/// Lines as Python counts them: ended by `\n`, `\r\n` or `\r`.
fn split(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<String> = text.split('\n').map(|l| l.trim_end().to_owned()).collect();
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_numbers() {
        let s = Source::from_bytes(b"\xef\xbb\xbfa  \r\nb\rc\n\n");
        assert_eq!(s.line(1), Some("a"));
        assert_eq!(s.line(3), Some("c"));
        assert_eq!(s.line(4), Some(""));
        assert_eq!((s.line(0), s.line(5)), (None, None));
        assert_eq!(s.from(3).len(), 2);
        let s = Source::from_text("x", 10);
        assert_eq!((s.line(10), s.line(1)), (Some("x"), None));
    }

    #[test]
    fn encodings() {
        let latin = b"#!/usr/bin/python\n# -*- coding: latin-1 -*-\ns = '\xe9'\n";
        assert_eq!(Source::from_bytes(latin).line(3), Some("s = 'é'"));
        assert_eq!(Source::from_bytes("s = 'é'".as_bytes()).line(1), Some("s = 'é'"));
        assert_eq!(Source::from_bytes(b"s = '\xe9'").line(1), Some("s = '\u{fffd}'"));
        assert_eq!(coding(b"# vim: set fileencoding=utf-8 :"), Some("utf-8".into()));
        assert_eq!(coding(b"x = 'coding: latin-1'"), None);
    }

    #[test]
    fn only_files_are_read() {
        assert!(Files.bytes("/dev/null").is_none());
        assert!(Files.bytes("no such file").is_none());
        assert!(Files.bytes(file!().rsplit('/').next().unwrap()).is_none());
    }
}
