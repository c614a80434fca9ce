//! Where the replacement allocators are installed: the dynamic linker's cache, and the usual
//! directories for what it doesn't list.

use std::path::{Path, PathBuf};

use super::list::Allocator;

/// The linker's cache.
const CACHE: &str = "/etc/ld.so.cache";
/// Where libraries lie on Debian, Fedora, Alpine with glibc, and by hand.
const DIRECTORIES: [&str; 7] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/lib",
];

/// The allocators that were found.
#[derive(Debug, Default)]
pub struct Libraries(Vec<(Allocator, PathBuf)>);

impl Libraries {
    /// Looks for each, by the patterns of its file names.
    pub fn find(wanted: &[(Allocator, &[&str])]) -> Libraries {
        let cache = std::fs::read(CACHE).unwrap_or_default();
        let mut all = cached(&cache);
        for directory in DIRECTORIES {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            all.extend(entries.map(|e| e.path()).filter(|p| is_library(p)));
        }
        Libraries(wanted.iter().filter_map(|(a, files)| Some((*a, first(&all, files)?))).collect())
    }

    /// The file of an allocator.
    pub fn path(&self, of: Allocator) -> Option<&Path> {
        self.0.iter().find(|(a, _)| *a == of).map(|(_, path)| &**path)
    }
}

fn is_library(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.contains(".so"))
}

/// The first that fits the first pattern that any fits, and is there.
fn first(all: &[PathBuf], patterns: &[&str]) -> Option<PathBuf> {
    let fits = |path: &Path, pattern: &str| {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
        pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
    };
    let found = |pattern: &&str| all.iter().find(|p| fits(p, pattern) && p.is_file()).cloned();
    patterns.iter().find_map(found)
}

/// `struct cache_file_new` and `struct file_entry_new` (glibc sysdeps/generic/dl-cache.h, 2.2 to
/// 2.43): its magic, number of libraries, and where the list begins.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const COUNT: usize = 20;
const ENTRIES: usize = 48;
const ENTRY: usize = 24;
/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const OURS: u32 = 0x0303;

/// Paths of the cache's libraries for this architecture. What makes no sense is left out.
fn cached(cache: &[u8]) -> Vec<PathBuf> {
    // Until glibc 2.32 the new format may follow an old one; offsets count from its own start.
    let Some(start) = cache.windows(MAGIC.len()).position(|w| w == MAGIC) else { return vec![] };
    let cache = cache.get(start..).unwrap_or(&[]);
    let number = |at: usize| {
        let bytes = cache.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let text = |at: u32| {
        let rest = cache.get(at as usize..)?;
        let end = rest.iter().position(|b| *b == 0)?;
        Some(PathBuf::from(String::from_utf8_lossy(rest.get(..end)?).into_owned()))
    };
    let count = number(COUNT).unwrap_or(0) as usize;
    (0..count.min(cache.len() / ENTRY))
        .map(|i| ENTRIES + i * ENTRY)
        .filter(|at| number(*at) == Some(OURS))
        .filter_map(|at| text(number(at + 8)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lists_libraries_of_this_architecture() {
        let mut cache = b"old format".to_vec();
        cache.extend(MAGIC);
        cache.extend(2u32.to_le_bytes());
        cache.resize(10 + ENTRIES, 0);
        let strings = (ENTRIES + 2 * ENTRY) as u32;
        for (flags, at) in [(OURS, strings), (0x0003, strings)] {
            cache.extend(flags.to_le_bytes());
            cache.extend(strings.to_le_bytes());
            cache.extend(at.to_le_bytes());
            cache.extend([0; 12]);
        }
        cache.extend(b"/usr/lib/libx.so.1\0");
        assert_eq!(cached(&cache), [PathBuf::from("/usr/lib/libx.so.1")]);
        // Cut off anywhere, it is no more than incomplete.
        for end in 0..cache.len() {
            cached(&cache[..end]);
        }
        assert_eq!(cached(b"nothing"), Vec::<PathBuf>::new());
    }

    #[test]
    fn this_machines_cache_has_its_c_library() {
        let cache = std::fs::read(CACHE).unwrap();
        assert!(cached(&cache).iter().any(|p| p.ends_with("libc.so.6")));
    }

    #[test]
    fn a_star_stands_for_any_end() {
        let dir = std::env::temp_dir().join(format!("strandline-test-so-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let all: Vec<PathBuf> =
            ["liba.so.3", "libb.so.4", "libb_debug.so.4"].map(|n| dir.join(n)).into();
        for path in &all {
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(first(&all, &["libz.so.1", "liba.so.*"]), Some(all[0].clone()));
        assert_eq!(first(&all, &["libb.so.4"]), Some(all[1].clone()));
        assert_eq!(first(&all, &["libb.so.5"]), None);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(first(&all, &["liba.so.*"]), None);
    }
}
