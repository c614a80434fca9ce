//! `/proc/PID/smaps` as mappings (proc_pid_smaps(5)).

use crate::mapping::{Mapping, Usage};

/// The mappings that `text` lists. Lines that aren't understood are skipped: newer kernels add
/// some.
pub fn parse(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = header(line) {
            mappings.push(mapping);
        } else if let (Some(m), Some((name, value))) = (mappings.last_mut(), line.split_once(':')) {
            let kib = value.trim().strip_suffix(" kB").and_then(|n| n.trim().parse::<u64>().ok());
            if let (Some(kib), Some(usage)) = (kib, m.usage.as_mut()) {
                add(usage, name, kib * 1024);
            }
        }
    }
    mappings
}

/// `55d0c2f1a000-55d0c2f1b000 r-xp 00001000 fe:00 3466      /usr/bin/python3`
fn header(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let mut words = rest.splitn(4, ' ');
    let (permissions, offset, _device) = (words.next()?, hex(words.next()?)?, words.next()?);
    let rest = words.next()?;
    let (inode, path) = rest.split_once(' ').unwrap_or((rest, ""));
    (start < end && permissions.len() == 4).then(|| Mapping {
        start,
        end,
        read: permissions.contains('r'),
        write: permissions.contains('w'),
        execute: permissions.contains('x'),
        shared: permissions.ends_with('s'),
        offset,
        inode: inode.trim().parse().unwrap_or(0),
        path: path.trim_start().to_owned(),
        usage: Some(Usage::default()),
        ..Mapping::default()
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn add(usage: &mut Usage, name: &str, bytes: u64) {
    let field = match name {
        "Rss" => &mut usage.rss,
        "Pss" => &mut usage.pss,
        "Shared_Clean" | "Shared_Dirty" => &mut usage.shared,
        "Private_Clean" | "Private_Dirty" => &mut usage.private,
        "Anonymous" => &mut usage.anonymous,
        "Swap" => &mut usage.swap,
        "AnonHugePages" => &mut usage.huge,
        _ => return,
    };
    *field += bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55d0c2f1a000-55d0c2f1b000 r-xp 00001000 fe:00 3466                       /a b/python3 (deleted)
Size:                  4 kB
Rss:                   4 kB
Shared_Clean:          3 kB
Shared_Dirty:          1 kB
VmFlags: rd ex mr mw me
7ffd0d5e1000-7ffd0d602000 rw-p 00000000 00:00 0                          [stack]
Rss:                  16 kB
Anonymous:            16 kB
7f0000000000-7f0000001000 rw-s 00000000 00:01 2051
";

    #[test]
    fn mappings_have_their_figures() {
        let m = parse(TEXT);
        assert_eq!(m.len(), 3);
        assert_eq!((m[0].start, m[0].end, m[0].offset), (0x55d0c2f1a000, 0x55d0c2f1b000, 0x1000));
        assert!(m[0].read && m[0].execute && !m[0].write && !m[0].shared);
        assert_eq!((m[0].inode, m[0].path.as_str()), (3466, "/a b/python3 (deleted)"));
        let usage = m[0].usage.unwrap_or_default();
        assert_eq!((usage.rss, usage.shared), (4096, 4096));
        assert_eq!(m[1].path, "[stack]");
        assert!(m[1].is_anonymous() && m[2].shared && m[2].path.is_empty());
        assert_eq!(m[1].usage.unwrap_or_default().anonymous, 16384);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "([0-9a-f\\- rwxps:/\n]|Rss: *[0-9]* kB\n){0,200}") {
            parse(&text);
        }
    }
}
