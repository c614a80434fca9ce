//! Where source lines come from.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

/// Largest file that is read.
const LARGEST_FILE: u64 = 8 << 20;
/// What the cache holds at most before it is emptied.
const LARGEST_CACHE: usize = 64 << 20;
/// Longest line that is handed out, in characters; the rest is cut.
const LONGEST_LINE: usize = 160;

/// Looks up source lines.
pub trait Sources {
    /// Text of a line (the first is 1) without space around it; `None`: not known.
    fn line(&self, file: &str, line: u32) -> Option<String>;
}

/// Knows no line.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSources;

impl Sources for NoSources {
    fn line(&self, _file: &str, _line: u32) -> Option<String> {
        None
    }
}

/// The files on this machine as they are now, each read once; only ordinary files of Python code
/// of at most 8 MiB, and never more than 64 MiB of them kept.
#[derive(Debug, Default)]
pub struct Disk {
    cache: RefCell<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    files: HashMap<String, Option<Text>>,
    bytes: usize,
}

#[derive(Debug)]
struct Text {
    text: String,
    /// Where each line starts.
    starts: Vec<u32>,
}

impl Disk {
    /// With an empty cache.
    pub fn new() -> Disk {
        Disk::default()
    }
}

impl Sources for Disk {
    fn line(&self, file: &str, line: u32) -> Option<String> {
        let mut cache = self.cache.borrow_mut();
        if !cache.files.contains_key(file) {
            let text = read(file);
            let bytes = text.as_ref().map_or(0, |t| t.text.len() + 4 * t.starts.len());
            if cache.bytes + bytes > LARGEST_CACHE {
                *cache = Cache::default();
            }
            cache.bytes += bytes;
            cache.files.insert(file.to_owned(), text);
        }
        let Text { text, starts } = cache.files.get(file)?.as_ref()?;
        let at = (line as usize).checked_sub(1)?;
        let start = *starts.get(at)? as usize;
        let end = starts.get(at + 1).map_or(text.len(), |&end| end as usize);
        let line = text.get(start..end)?.trim();
        (!line.is_empty()).then(|| cut(line))
    }
}

fn read(file: &str) -> Option<Text> {
    // Opening a pipe or a device could wait or do something.
    let about = std::fs::metadata(file).ok()?;
    if !about.is_file() || about.len() > LARGEST_FILE {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(LARGEST_FILE).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if !is_code(file, &text) {
        return None;
    }
    let mut starts = vec![0];
    starts.extend(text.match_indices('\n').map(|(at, _)| at as u32 + 1));
    Some(Text { text, starts })
}

/// It is a file of Python code. A profile from elsewhere may name any file, and a page is passed
/// on: lines of a file of secrets must not get into it.
fn is_code(file: &str, text: &str) -> bool {
    let ending = file.rsplit_once('.').map_or("", |(_, ending)| ending);
    let script = || {
        let first = text.lines().next().unwrap_or_default();
        first.starts_with("#!") && first.contains("python")
    };
    matches!(ending, "py" | "pyw" | "pyx" | "pxd" | "pxi") || script()
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LONGEST_LINE) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_trimmed_cut_and_counted_from_one() {
        let path = std::env::temp_dir().join(format!("strandline-flame-{}.py", std::process::id()));
        std::fs::write(&path, format!("first\n\n   third = {}\nlast", "é".repeat(200))).unwrap();
        let file = path.to_str().unwrap();
        let disk = Disk::new();
        assert_eq!(disk.line(file, 0), None);
        assert_eq!(disk.line(file, 1).as_deref(), Some("first"));
        assert_eq!(disk.line(file, 2), None);
        let third = disk.line(file, 3).unwrap();
        assert!(third.starts_with("third = é") && third.ends_with('…'));
        assert_eq!(third.chars().count(), LONGEST_LINE + 1);
        assert_eq!(disk.line(file, 4).as_deref(), Some("last"));
        assert_eq!(disk.line(file, 5), None);
        std::fs::remove_file(&path).unwrap();
        // Read once, then remembered.
        assert_eq!(disk.line(file, 1).as_deref(), Some("first"));
    }

    #[test]
    fn only_files_of_code_are_shown() {
        assert!(is_code("/srv/app.py", ""));
        assert!(is_code("/usr/bin/tool", "#!/usr/bin/env python3\nimport x"));
        assert!(!is_code("/etc/passwd", "root:x:0:0"));
        assert!(!is_code("/home/me/run.sh", "#!/bin/sh\npython3"));
    }

    #[test]
    fn what_is_no_file_has_no_lines() {
        for file in ["/dev/zero", "/", "<frozen importlib._bootstrap>", ""] {
            assert_eq!(Disk::new().line(file, 1), None);
        }
    }
}
