//! Numbers and widths in words that people read.

use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a text.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// At most `width` columns: the start of the text, and a sign that there was more.
pub(super) fn fit(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// At most `width` columns: the end of the text, which tells most of a path.
pub(super) fn fit_end(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let mut from = text.len();
    for (i, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        from = i;
    }
    format!("…{}", text.get(from..).unwrap_or_default())
}

/// At most `width` columns of `function (file:line)`: the path is cut before the function is.
pub(super) fn fit_name(name: &str, width: usize) -> String {
    match name.split_once(" (") {
        Some((function, at)) if columns(name) > width && columns(function) + 12 <= width => {
            format!("{function} ({}", fit_end(at, width - columns(function) - 2))
        }
        _ => fit_end(name, width),
    }
}

/// `1,234,567`
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 block`, `2 blocks`
pub(super) fn counted(n: u64, one: &str, several: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { several })
}

/// `46.375 MiB`
pub(super) fn mib(bytes: u64) -> String {
    strandline_report::text::mib(bytes.into())
}

/// `+46.375 MiB`, `-1.000 MiB`
pub(super) fn signed_mib(bytes: i64) -> String {
    let text = strandline_report::text::mib(bytes.into());
    if bytes > 0 {
        format!("+{text}")
    } else {
        text
    }
}

/// `+1,234`
pub(super) fn signed_count(n: i64) -> String {
    let sign = match n {
        0 => "",
        n if n > 0 => "+",
        _ => "-",
    };
    format!("{sign}{}", count(n.unsigned_abs()))
}

/// `48.8 %`
pub(super) fn percent(share: f64) -> String {
    format!("{share:.1} %")
}

/// A power of two: `64 bytes`, `2 KiB`, `8 MiB`.
pub(super) fn limit(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift != 0) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

/// `2026-05-03 14:02:11 UTC`
pub(super) fn moment(unix_ns: u64) -> Option<String> {
    if unix_ns == 0 {
        return None;
    }
    let time = Timestamp::from_nanosecond(unix_ns.into()).ok()?;
    Some(time.strftime("%F %T UTC").to_string())
}

/// `12.3 s`, `3 min 12 s`, `2 h 3 min`
pub(super) fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..60 => format!("{:.1} s", (ns / 100_000_000) as f64 / 10.0),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [16, 1024, 4 << 20, 1 << 30].map(limit),
            ["16 bytes", "1 KiB", "4 MiB", "1 GiB"]
        );
        assert_eq!(signed_mib(1 << 20), "+1.000 MiB");
        assert_eq!(signed_mib(-(1 << 20)), "-1.000 MiB");
        assert_eq!(signed_count(-1234), "-1,234");
        assert_eq!(duration(12_345_000_000), "12.3 s");
        assert_eq!(duration(192_000_000_000), "3 min 12 s");
        assert_eq!(duration(7_400_000_000_000), "2 h 3 min");
        assert_eq!(moment(1_700_000_000_000_000_000).unwrap(), "2023-11-14 22:13:20 UTC");
        assert_eq!(moment(0), None);
        assert!(moment(u64::MAX).is_some());
    }

    #[test]
    fn what_is_cut_fits() {
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit_end("abcdef", 4), "…def");
        assert_eq!(fit_end("日本語", 6), "日本語");
        assert_eq!(fit_name("load (/srv/app/cache.py:42)", 20), "load (…/cache.py:42)");
        for width in 1..8 {
            assert!(columns(&fit("a日b本c語", width)) <= width);
            assert!(columns(&fit_end("a日b本c語", width)) <= width);
        }
    }
}
