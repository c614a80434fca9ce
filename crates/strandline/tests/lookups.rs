//! Functions of libc that are looked up by name (`dlsym`, `dlvsym`): what is asked for through them
//! is counted, and whoever asks gets the answer that he would get without strandline.

mod common;

use std::process::Command;

use common::recorded::*;
use common::*;
use strandline_profile::{Amount, Domain};

const FAMILY: &str = r#"
import ctypes
size, pointer, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
def typed(f, result, *arguments):
    f.restype, f.argtypes = result, arguments
    return f
linked, libc = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
dlvsym = typed(linked.dlvsym, pointer, pointer, ctypes.c_char_p, ctypes.c_char_p)
versioned = ctypes.CFUNCTYPE(pointer, size)(dlvsym(libc._handle, b"malloc", b"GLIBC_2.2.5"))
frees = [typed(library.free, None, pointer) for library in (linked, libc)]
own = typed(linked.malloc, pointer, size)
malloc, calloc = typed(libc.malloc, pointer, size), typed(libc.calloc, pointer, size, size)
realloc = typed(libc.realloc, pointer, pointer, size)
memalign = typed(libc.memalign, pointer, size, size)
posix = typed(libc.posix_memalign, number, ctypes.POINTER(pointer), size, size)
mmap = typed(libc.mmap, pointer, pointer, size, number, number, number, ctypes.c_long)
munmap = typed(libc.munmap, number, pointer, size)
def do_linked(): return own(70000)
def do_malloc(): return malloc(70000)
def do_versioned(): return versioned(70000)
def do_calloc(): return calloc(7, 10000)
def do_realloc(): return realloc(do_malloc(), 70001)
def do_memalign(): return memalign(64, 70000)
def do_posix():
    p = pointer()
    posix(ctypes.byref(p), 64, 70000)
    return p.value
def do_mmap():
    p = mmap(None, 8192, 3, 0x22, -1, 0)
    munmap(p + 4096, 4096)
for f in [do_linked, do_malloc, do_versioned, do_calloc, do_realloc, do_memalign, do_posix]:
    for free in frees:
        f()
        free(f())
do_mmap()
print(ctypes.cast(malloc, pointer).value == ctypes.cast(own, pointer).value)
"#;

#[test]
fn what_is_asked_through_libcs_own_handle_is_counted() {
    each(|python| {
        let recorded = record(python, FAMILY);
        assert_eq!(recorded.ran.stdout, "True\n", "it is the same function");
        let p = &recorded.profile.processes[0];
        adds_up(p);
        let times = |n, bytes| Amount { bytes: n * bytes, blocks: n };
        let all = [
            ("do_linked", 4, 2, 70_000),
            ("do_malloc", 8, 6, 70_000),
            ("do_versioned", 4, 2, 70_000),
            ("do_calloc", 4, 2, 70_000),
            ("do_realloc", 4, 2, 70_001),
            ("do_memalign", 4, 2, 70_000),
            ("do_posix", 4, 2, 70_000),
        ];
        for (function, made, freed, bytes) in all {
            let wanted = (times(made, bytes), times(freed, bytes));
            assert_eq!(large(p, function), wanted, "{function}");
        }
        let (mapped, unmapped) = asked(p, "do_mmap", Domain::Mmap);
        assert_eq!((mapped.bytes, unmapped.bytes), (8192, 4096));
    });
}

/// Whether an answer depends on who asks: `RTLD_NEXT`, `RTLD_DEFAULT`, a handle.
const ASKS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int value(void) { return 1; }
static int call(void *f) { return f ? ((int (*)(void))f)() : -1; }
void ask(const char *libc) {
    void *handle = dlopen(libc, RTLD_NOW);
    void *mine = dlopen("./asks.so", RTLD_NOW);
    printf("%d %d %d %d\n", call(dlsym(RTLD_NEXT, "value")), call(dlsym(RTLD_DEFAULT, "only_here")),
           call(dlsym(handle, "value")), call(dlsym(mine, "value")));
    printf("%d %d\n", call(dlvsym(RTLD_DEFAULT, "only_here", "NONE")), call(dlsym(mine, "mmap64")));
    dlerror();
    printf("%d", dlsym(RTLD_NEXT, "nothing_like_it") == NULL);
    const char *said = dlerror();
    printf(" %s\n", said ? strchr(said, ':') : "nothing");
    printf("%d", dlsym(handle, "malloc") != NULL);
    printf(" %s\n", dlerror() ? "an error" : "no error");
    printf("%d", dlsym(handle, "free_of_this_name") != NULL);
    said = dlerror();
    printf(" %s\n", said ? strchr(said, ':') : "nothing");
    printf("%d\n", dlsym(handle, "malloc") == dlsym(handle, "malloc"));
}
"#;
const BEHIND: &str = "int value(void) { return 2; }\nint only_here(void) { return 3; }\n\
                      int mmap64(void) { return 4; }\n";

#[test]
fn who_asks_gets_the_answer_meant_for_him() {
    each(|python| {
        let source = "import ctypes\nctypes.CDLL('./asks.so').ask(b'libc.so.6')\n";
        let job = Job::script(python, source);
        let behind = library(&job.dir, "behind", BEHIND, &[]);
        library(&job.dir, "asks", ASKS, &[&behind]);
        let plain = job.plain().ok();
        assert!(plain.stdout.starts_with("2 3 -1 1\n-1 4\n1 : "), "{}", plain.stdout);
        let mut command = Command::new(STRANDLINE);
        clean(&mut command);
        command.args(["run", "--stacks", "-o", "p.strand", "--python"]).arg(&python.path);
        let ran = run(command.arg("prog.py").current_dir(job.dir.path()), "").ok();
        assert_eq!(ran.stdout, plain.stdout);
        let (ran, _) = job.profiled();
        assert_eq!(ran.stdout, plain.stdout);
    });
}
