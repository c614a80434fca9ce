//! Which CPython an image holds, from the text that `Py_GetVersion` made at start-up.

use strandline_image::Image;

use crate::modules::ModuleData;

/// A CPython's own words about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Major and minor.
    pub series: (u8, u8),
    /// `sys.version`.
    pub text: String,
    /// Where the text stands.
    pub address: u64,
    /// It is a build without the GIL.
    pub free_threaded: bool,
}

/// What such a build says behind its number (Python/getversion.c; 3.13, and 3.14).
const FREE_THREADED: [&str; 2] = ["experimental free-threading build ", "free-threading build "];

/// `rest` without what a free-threaded build says, if it says it.
fn free_threaded(rest: &str) -> Option<&str> {
    FREE_THREADED.iter().find_map(|words| rest.strip_prefix(words))
}

/// Longest text (`static char version[250]`, Python/getversion.c; 300 from 3.13).
const LONGEST: usize = 300;

/// The text at the start of `bytes`, if there is one: `3.8.18 (default, ...) [GCC ...]`, the
/// bracket after a newline up to 3.9 (Python/getversion.c).
fn text_at(bytes: &[u8]) -> Option<(&str, (u8, u8))> {
    let end = bytes.iter().take(LONGEST).position(|&b| b == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let (number, rest) = text.split_once(' ')?;
    let mut parts = number.split('.');
    let major: u8 = parts.next()?.parse().ok()?;
    let minor: u8 = parts.next()?.parse().ok()?;
    let micro = parts.next()?;
    let plausible = matches!(major, 2 | 3)
        && micro.starts_with(|c: char| c.is_ascii_digit())
        && free_threaded(rest).unwrap_or(rest).starts_with('(')
        && rest.contains(")")
        && rest.contains('[')
        && rest.ends_with(']');
    plausible.then_some((text, (major, minor)))
}

/// The version named in a module's data.
pub(crate) fn version_in(image: &Image, module: &ModuleData) -> Option<Version> {
    for (start, bytes) in module.pieces(image) {
        let mut at = 0;
        while let Some(i) = bytes[at..].iter().position(|&b| b == b'2' || b == b'3') {
            at += i;
            let fresh = at == 0 || bytes[at - 1] == 0;
            if fresh && bytes.get(at + 1) == Some(&b'.') {
                if let Some((text, series)) = text_at(&bytes[at..]) {
                    let address = start + at as u64;
                    let rest = text.split_once(' ').map_or("", |(_, rest)| rest);
                    let free_threaded = free_threaded(rest).is_some();
                    return Some(Version { series, text: text.to_owned(), address, free_threaded });
                }
            }
            at += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_text_is_recognised() {
        let old = b"2.7.18 (default, May  9 2026, 07:29:34) \n[GCC 12.2.0]\0";
        assert_eq!(text_at(old).map(|t| t.1), Some((2, 7)));
        let new = b"3.13.0 (main, May  9 2026, 07:45:44) [GCC 12.2.0]\0...";
        assert_eq!(text_at(new).map(|t| t.1), Some((3, 13)));
        let free = b"3.13.15 experimental free-threading build (main, May  9 2026) [GCC 12.2.0]\0";
        assert_eq!(text_at(free).map(|t| t.1), Some((3, 13)));
        let clang = b"3.12.1+ (heads/main:abc, Jan  1 2024, 00:00:00) [Clang 17.0.6 ]\0";
        assert_eq!(text_at(clang).map(|t| t.1), Some((3, 12)));
        for text in [&b"3.11.7\0"[..], b"3.1\0", b"2.36 (x) [y]\0", b"3.11.7 (main) [GCC 12.2.0]"] {
            assert_eq!(text_at(text), None, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
