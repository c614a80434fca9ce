//! The remedies: what each one is, and what keeps it from being tried.

use std::path::PathBuf;

use strandline_capture::layout;
use strandline_capture::read::Bare;
use strandline_report::remedies as report;

use super::libraries::Libraries;

/// A replacement for the C library's malloc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocator {
    Jemalloc,
    Mimalloc,
    Tcmalloc,
}

/// One remedy.
#[derive(Debug)]
pub struct Remedy {
    /// Stable name.
    pub name: &'static str,
    /// What it does.
    pub text: &'static str,
    /// Environment variables.
    pub variables: &'static [(&'static str, &'static str)],
    /// What is preloaded.
    pub library: Option<Allocator>,
    /// `OPTION_*` bits of the layout: what the agent does.
    pub options: u32,
    /// What to put into the program.
    pub code: Option<&'static str>,
}

const PLAIN: Remedy =
    Remedy { name: "", text: "", variables: &[], library: None, options: 0, code: None };
const TRIM_THRESHOLD: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "65536");
const PYTHONMALLOC: (&str, &str) = ("PYTHONMALLOC", "malloc");
const JEMALLOC_DECAY: (&str, &str) = ("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
const TCMALLOC_DECOMMIT: (&str, &str) = ("TCMALLOC_AGGRESSIVE_DECOMMIT", "1");
const TRIM: &str = "import ctypes; ctypes.CDLL(None).malloc_trim(0)";
/// All three layers: the program has no line for the pool trim alone.
const TRIM_ALL: &str = "import strandline; strandline.trim()";
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Every remedy, in the order in which they are tried.
pub static ALL: [Remedy; 24] = [
    Remedy {
        name: "collect",
        text: "gc.collect() at the point",
        options: layout::OPTION_COLLECT,
        code: Some("import gc; gc.collect()"),
        ..PLAIN
    },
    Remedy {
        name: "malloc-trim",
        text: "malloc_trim(0) at the point",
        options: layout::OPTION_TRIM,
        code: Some(TRIM),
        ..PLAIN
    },
    Remedy {
        name: "collect-and-trim",
        text: "gc.collect(), then malloc_trim(0) at the point",
        options: layout::OPTION_COLLECT | layout::OPTION_TRIM,
        code: Some("import gc, ctypes; gc.collect(); ctypes.CDLL(None).malloc_trim(0)"),
        ..PLAIN
    },
    Remedy {
        name: "pool-trim",
        text: "the pages of Python's free pools are given back at the point",
        options: layout::OPTION_POOL_TRIM,
        code: Some(TRIM_ALL),
        ..PLAIN
    },
    Remedy {
        name: "all-trims",
        text: "gc.collect(), malloc_trim(0), then the pool trim at the point",
        options: layout::OPTION_COLLECT | layout::OPTION_TRIM | layout::OPTION_POOL_TRIM,
        code: Some(TRIM_ALL),
        ..PLAIN
    },
    Remedy {
        name: "trim-threshold",
        text: "glibc gives back the free top of its heap from 64 KiB on",
        variables: &[TRIM_THRESHOLD],
        ..PLAIN
    },
    Remedy {
        name: "mmap-threshold",
        text: "glibc maps blocks from 64 KiB on apart, and unmaps them when they are freed",
        variables: &[("MALLOC_MMAP_THRESHOLD_", "65536")],
        ..PLAIN
    },
    Remedy {
        name: "arena-max",
        text: "glibc has one heap for all threads",
        variables: &[("MALLOC_ARENA_MAX", "1")],
        ..PLAIN
    },
    Remedy {
        name: "tunables",
        text: "both thresholds at 64 KiB",
        variables: &[(
            TUNABLES,
            "glibc.malloc.trim_threshold=65536:glibc.malloc.mmap_threshold=65536",
        )],
        ..PLAIN
    },
    Remedy {
        name: "pythonmalloc",
        text: "malloc in place of Python's own allocator",
        variables: &[PYTHONMALLOC],
        ..PLAIN
    },
    Remedy {
        name: "pythonmalloc-trim",
        text: "malloc in place of Python's own allocator, and malloc_trim(0) at the point",
        variables: &[PYTHONMALLOC],
        options: layout::OPTION_TRIM,
        code: Some(TRIM),
        ..PLAIN
    },
    Remedy {
        name: "pythonmalloc-thresholds",
        text: "malloc in place of Python's own allocator, its trim threshold at 64 KiB",
        variables: &[PYTHONMALLOC, TRIM_THRESHOLD],
        ..PLAIN
    },
    Remedy {
        name: "mimalloc-python",
        text: "the mimalloc that Python carries in place of its own allocator",
        variables: &[("PYTHONMALLOC", "mimalloc")],
        ..PLAIN
    },
    Remedy {
        name: "jemalloc",
        text: "jemalloc in place of glibc's malloc",
        library: Some(Allocator::Jemalloc),
        ..PLAIN
    },
    Remedy {
        name: "jemalloc-pythonmalloc",
        text: "jemalloc in place of glibc's malloc and of Python's own allocator",
        library: Some(Allocator::Jemalloc),
        variables: &[PYTHONMALLOC],
        ..PLAIN
    },
    Remedy {
        name: "jemalloc-decay0",
        text: "jemalloc that gives free pages back at once, in place of glibc's malloc",
        library: Some(Allocator::Jemalloc),
        variables: &[JEMALLOC_DECAY],
        ..PLAIN
    },
    Remedy {
        name: "jemalloc-decay0-pythonmalloc",
        text: "jemalloc that gives free pages back at once, in place of both allocators",
        library: Some(Allocator::Jemalloc),
        variables: &[PYTHONMALLOC, JEMALLOC_DECAY],
        ..PLAIN
    },
    Remedy {
        name: "mimalloc",
        text: "mimalloc in place of glibc's malloc",
        library: Some(Allocator::Mimalloc),
        ..PLAIN
    },
    Remedy {
        name: "mimalloc-pythonmalloc",
        text: "mimalloc in place of glibc's malloc and of Python's own allocator",
        library: Some(Allocator::Mimalloc),
        variables: &[PYTHONMALLOC],
        ..PLAIN
    },
    Remedy {
        name: "tcmalloc",
        text: "tcmalloc in place of glibc's malloc",
        library: Some(Allocator::Tcmalloc),
        ..PLAIN
    },
    Remedy {
        name: "tcmalloc-pythonmalloc",
        text: "tcmalloc in place of glibc's malloc and of Python's own allocator",
        library: Some(Allocator::Tcmalloc),
        variables: &[PYTHONMALLOC],
        ..PLAIN
    },
    Remedy {
        name: "tcmalloc-decommit",
        text: "tcmalloc that gives free pages back at once, in place of glibc's malloc",
        library: Some(Allocator::Tcmalloc),
        variables: &[TCMALLOC_DECOMMIT],
        ..PLAIN
    },
    Remedy {
        name: "tcmalloc-decommit-pythonmalloc",
        text: "tcmalloc that gives free pages back at once, in place of both allocators",
        library: Some(Allocator::Tcmalloc),
        variables: &[PYTHONMALLOC, TCMALLOC_DECOMMIT],
        ..PLAIN
    },
    Remedy {
        name: "subprocess",
        text: "the function under @profile runs in a forked child, its pickled result comes back",
        options: layout::OPTION_APART,
        code: Some(
            "pool = multiprocessing.Pool(1); result = pool.apply(function, arguments); pool.terminate()",
        ),
        ..PLAIN
    },
];

/// True if there is a remedy of that name.
pub fn is_known(name: &str) -> bool {
    ALL.iter().any(|r| r.name == name)
}

/// All names, for a usage error.
pub fn names() -> String {
    ALL.iter().map(|r| r.name).collect::<Vec<_>>().join(", ")
}

impl Allocator {
    const ALL: [Allocator; 3] = [Allocator::Jemalloc, Allocator::Mimalloc, Allocator::Tcmalloc];

    /// File names of its library, the preferred first; a star stands for the rest of a name.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Allocator::Jemalloc => &["libjemalloc.so.2"],
            Allocator::Mimalloc => &["libmimalloc.so.*"],
            // The minimal one is the allocator alone, without a heap profiler.
            Allocator::Tcmalloc => &["libtcmalloc_minimal.so.4", "libtcmalloc.so.4"],
        }
    }

    /// What to say if there is none.
    fn missing(self) -> &'static str {
        match self {
            Allocator::Jemalloc => {
                "no libjemalloc.so.2 is installed; apt install libjemalloc2, or your system's package"
            }
            Allocator::Mimalloc => {
                "no libmimalloc.so is installed; apt install libmimalloc2.0 or libmimalloc3, or your \
                 system's package"
            }
            Allocator::Tcmalloc => {
                "no libtcmalloc_minimal.so.4 is installed; apt install libtcmalloc-minimal4, or your \
                 system's package"
            }
        }
    }

    /// The Debian package to install in a Dockerfile, where there is one name for it.
    fn package(self) -> Option<&'static str> {
        match self {
            Allocator::Jemalloc => Some("libjemalloc2"),
            Allocator::Mimalloc => None,
            Allocator::Tcmalloc => Some("libtcmalloc-minimal4"),
        }
    }
}

/// The libraries that are installed.
pub fn installed() -> Libraries {
    Libraries::find(&Allocator::ALL.map(|a| (a, a.files())))
}

impl Remedy {
    /// True if the pool trim is part of it.
    pub fn trims_pools(&self) -> bool {
        self.options & layout::OPTION_POOL_TRIM != 0
    }

    /// Why it can't be tried on the program that did `as_is`.
    pub fn obstacle(&self, as_is: &Bare, libraries: &Libraries) -> Option<String> {
        let sets = |name: &str| self.variables.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let version = as_is.python.map_or((0, 0), |(major, minor, _)| (major, minor));
        let acts = self.options != 0;
        let other_malloc = as_is.flags & layout::BARE_OTHER_MALLOC != 0;
        let for_glibc = self.options & layout::OPTION_TRIM != 0
            || self
                .variables
                .iter()
                .any(|(n, _)| *n == TUNABLES || n.starts_with("MALLOC_") && *n != JEMALLOC_DECAY.0);
        if sets("PYTHONMALLOC").is_some() && version < (3, 6) {
            return Some("PYTHONMALLOC needs Python 3.6 or later".to_owned());
        }
        if sets("PYTHONMALLOC") == Some("mimalloc") && version < (3, 13) {
            return Some("PYTHONMALLOC=mimalloc needs Python 3.13 or later".to_owned());
        }
        if acts && as_is.refused {
            return Some(
                "nothing can be done inside this interpreter: strandline knows the \
                         ordinary builds of CPython 2.7 and 3.6 to 3.13"
                    .to_owned(),
            );
        }
        if self.trims_pools() && version < (3, 10) {
            return Some("the pool trim needs Python 3.10 or later".to_owned());
        }
        if self.trims_pools() && other_malloc {
            return Some(
                "the pool trim finds Python's arenas by glibc's malloc, and the program has another one"
                    .to_owned(),
            );
        }
        if for_glibc && other_malloc {
            return Some("it is for glibc's malloc, and the program has another one".to_owned());
        }
        if sets(TUNABLES).is_some() && glibc() < (2, 26) {
            return Some("GLIBC_TUNABLES needs glibc 2.26 or later".to_owned());
        }
        if self.options & layout::OPTION_APART != 0 && as_is.returns == 0 {
            return Some(
                "no function has @profile that returned; put it in front of the one that needs \
                 the memory"
                    .to_owned(),
            );
        }
        let library = self.library?;
        libraries.path(library).is_none().then(|| library.missing().to_owned())
    }

    /// The variables as they are to be set: tunables that are set already stay.
    pub fn values(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut values = Vec::new();
        for (name, value) in self.variables {
            let mut whole = Vec::new();
            if *name == TUNABLES {
                if let Some(before) = std::env::var_os(name).filter(|v| !v.is_empty()) {
                    whole.extend(std::os::unix::ffi::OsStrExt::as_bytes(&*before));
                    whole.push(b':');
                }
            }
            whole.extend(value.as_bytes());
            values.push((*name, whole));
        }
        values
    }

    /// The library to preload.
    pub fn preload(&self, libraries: &Libraries) -> Option<PathBuf> {
        self.library.and_then(|l| libraries.path(l)).map(PathBuf::from)
    }

    /// How the report shows it. `command`: the program's words as for a shell.
    pub fn shown(&self, libraries: &Libraries, command: &str) -> report::Remedy {
        let mut set: Vec<(&str, String)> =
            self.variables.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        if let Some(path) = self.preload(libraries) {
            set.insert(0, ("LD_PRELOAD", path.display().to_string()));
        }
        let pairs: Vec<String> = set.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let pairs = pairs.join(" ");
        let install = self
            .library
            .and_then(Allocator::package)
            .map_or(String::new(), |p| format!("RUN apt-get update && apt-get install -y {p}\n"));
        let is_set = !set.is_empty();
        report::Remedy {
            name: self.name,
            text: self.text.to_owned(),
            line: match self.code {
                Some(code) if !is_set => code.to_owned(),
                _ => format!("{pairs} {command}"),
            },
            dockerfile: is_set.then(|| format!("{install}ENV {pairs}")),
            code: self.code.map(str::to_owned),
        }
    }
}

/// The C library's version: ours is the program's.
fn glibc() -> (u32, u32) {
    // SAFETY: gnu_get_libc_version(3) returns a static C string.
    let text = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    let text = text.to_string_lossy();
    let mut numbers = text.split('.').map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> &'static Remedy {
        ALL.iter().find(|r| r.name == name).unwrap()
    }

    fn none() -> Libraries {
        Libraries::default()
    }

    #[test]
    fn names_are_unique_and_every_remedy_does_something() {
        for (i, r) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(i + 1).all(|o| o.name != r.name), "{}", r.name);
            assert!(r.options != 0 || !r.variables.is_empty() || r.library.is_some());
            assert_eq!(r.options != 0, r.code.is_some(), "{}", r.name);
        }
        assert!(is_known("malloc-trim") && !is_known("") && !is_known("malloc_trim"));
    }

    #[test]
    fn obstacles() {
        let mut as_is = Bare { python: Some((2, 7, 18)), ..Bare::default() };
        let why = |name: &str, as_is: &Bare| of(name).obstacle(as_is, &none()).unwrap_or_default();
        assert!(why("pythonmalloc", &as_is).contains("3.6 or later"));
        for name in ["pool-trim", "all-trims"] {
            as_is.python = Some((3, 9, 18));
            assert!(why(name, &as_is).contains("needs Python 3.10 or later"));
            as_is.python = Some((3, 10, 0));
            assert_eq!(why(name, &as_is), "");
        }
        as_is.python = Some((3, 12, 1));
        assert_eq!(why("pythonmalloc", &as_is), "");
        assert!(why("mimalloc-python", &as_is).contains("3.13 or later"));
        as_is.python = Some((3, 13, 0));
        assert_eq!(why("mimalloc-python", &as_is), "");
        assert!(why("jemalloc-decay0", &as_is).contains("apt install libjemalloc2"));
        assert!(why("subprocess", &as_is).contains("@profile"));
        as_is.returns = 1;
        assert_eq!(why("subprocess", &as_is), "");
        as_is.flags = layout::BARE_OTHER_MALLOC;
        for name in [
            "malloc-trim",
            "pool-trim",
            "all-trims",
            "arena-max",
            "tunables",
            "pythonmalloc-thresholds",
        ] {
            assert!(why(name, &as_is).contains("another one"), "{name}");
        }
        assert_eq!(why("collect", &as_is) + &why("pythonmalloc", &as_is), "");
        as_is.refused = true;
        for name in ["collect", "pool-trim", "all-trims"] {
            assert!(why(name, &as_is).contains("inside this interpreter"));
        }
    }

    #[test]
    fn lines() {
        let shown = |name: &str| of(name).shown(&none(), "python app.py");
        let r = shown("trim-threshold");
        assert_eq!(r.line, "MALLOC_TRIM_THRESHOLD_=65536 python app.py");
        assert_eq!(r.dockerfile.as_deref(), Some("ENV MALLOC_TRIM_THRESHOLD_=65536"));
        assert_eq!(r.code, None);
        let r = shown("collect");
        assert_eq!((&*r.line, r.dockerfile), ("import gc; gc.collect()", None));
        let r = shown("pythonmalloc-trim");
        assert_eq!(r.line, "PYTHONMALLOC=malloc python app.py");
        assert!(r.code.unwrap().contains("malloc_trim(0)"));
    }
}
