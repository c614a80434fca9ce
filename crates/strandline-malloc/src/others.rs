//! Allocators that aren't glibc's: their names, and what memory says by its name whose it is.

use strandline_image::Image;

/// An allocator that isn't glibc's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherAllocator {
    /// Its name.
    pub name: &'static str,
    /// How it was told.
    pub evidence: Evidence,
    /// Bytes of the mappings that bear its name; `None` if it names none.
    pub mapped: Option<u64>,
    /// Resident bytes of these.
    pub resident: Option<u64>,
}

/// How an allocator was told. Being mapped doesn't mean being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A file of this path is mapped.
    File(String),
    /// Anonymous memory bears this name (`PR_SET_VMA_ANON_NAME`).
    MemoryName(String),
}

/// Name, beginnings of files' names, and what stands in the name that it gives its memory.
const KNOWN: [(&str, &[&str], Option<&str>); 8] = [
    ("jemalloc", &["libjemalloc"], Some("jemalloc")),
    ("mimalloc", &["libmimalloc"], Some("mimalloc")),
    ("tcmalloc", &["libtcmalloc"], Some("tcmalloc")),
    ("musl", &["ld-musl-", "libc.musl-"], None),
    ("scudo", &["libscudo", "libclang_rt.scudo"], Some("scudo")),
    ("snmalloc", &["libsnmalloc"], None),
    ("rpmalloc", &["librpmalloc"], None),
    ("hoard", &["libhoard"], None),
];

/// All that can be told.
pub(crate) fn find(image: &Image) -> Vec<OtherAllocator> {
    let mut found = Vec::new();
    for (name, files, memory) in KNOWN {
        let mut evidence = None;
        let mut sums = None;
        for mapping in image.mappings() {
            let file = mapping.path.rsplit('/').next().unwrap_or_default();
            if mapping.path.starts_with('/') {
                if files.iter().any(|prefix| file.starts_with(prefix)) {
                    evidence.get_or_insert_with(|| Evidence::File(mapping.path.clone()));
                }
            } else if memory.is_some_and(|mark| mapping.path.contains(mark)) {
                evidence.get_or_insert_with(|| Evidence::MemoryName(mapping.path.clone()));
                let (mapped, resident) = sums.get_or_insert((0, 0));
                *mapped += mapping.end - mapping.start;
                *resident += mapping.resident_bytes(mapping.start, mapping.end);
            }
        }
        if let Some(evidence) = evidence {
            let (mapped, resident) = sums.unzip();
            found.push(OtherAllocator { name, evidence, mapped, resident });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_image::{Mapping, PageSet, Source};

    #[test]
    fn files_and_names_of_memory_tell() {
        let map = |start: u64, path: &str| Mapping {
            start,
            end: start + 0x2000,
            path: path.into(),
            resident: PageSet::all(1),
            ..Mapping::default()
        };
        let mappings = vec![
            map(0x10000, "/usr/lib/libjemalloc.so.2"),
            map(0x20000, "[anon:tcmalloc_region_NORMAL]"),
            map(0x30000, "[anon:tcmalloc_region_METADATA]"),
            map(0x40000, "/home/jemalloc/libfoo.so"),
        ];
        let image = Image::new(mappings, Vec::new(), Vec::new(), Source::Fixture, None);
        let found = find(&image);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].evidence, Evidence::File("/usr/lib/libjemalloc.so.2".into()));
        assert_eq!((found[0].mapped, found[0].resident), (None, None));
        assert_eq!((found[1].name, found[1].mapped), ("tcmalloc", Some(0x4000)));
    }
}
