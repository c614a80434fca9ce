//! Libraries that come and go, threads that end, and stacks that aren't a thread's own.

mod common;

use std::path::PathBuf;
use std::process::Command;

use strandline_unwind::{capture, modules, refresh, End, StackBounds, StackCache};

#[repr(C)]
struct Chain {
    table: *const usize,
    leaf: unsafe extern "C" fn(*mut Chain),
}
type Other = unsafe extern "C" fn(*mut Chain, *const u16, i64) -> i64;

unsafe extern "C" fn leaf(_: *mut Chain) {
    assert!(common::truth::agree(), "{}", common::truth::describe());
}

fn call(library: *mut libc::c_void) {
    let f = common::symbol(library, "other_library");
    let mut chain = Chain { table: std::ptr::null(), leaf };
    // SAFETY: other.c defines it so; a chain of length 0 calls the leaf only.
    unsafe { std::mem::transmute::<*mut libc::c_void, Other>(f)(&mut chain, std::ptr::null(), 0) };
}

fn libraries() -> Vec<PathBuf> {
    let dir = common::directory("loading");
    let flags: [&[&str]; 3] =
        [&["-O0"], &["-O2", "-fomit-frame-pointer"], &["-O2", "-DA=1", "-fno-omit-frame-pointer"]];
    let compile = |(i, flags): (usize, &&[&str])| {
        let library = dir.join(format!("libgone{i}.so"));
        common::compile("cc", flags, &["other.c"], &library, &[]);
        library
    };
    flags.iter().enumerate().map(compile).collect()
}

/// One after the other at the same addresses, with other rules for the same address.
fn come_and_go() {
    let libraries = libraries();
    let mut places = std::collections::HashSet::new();
    for round in 0..60 {
        let library = common::load(&libraries[round % 3]);
        // glibc's own table knows a library before anybody says so; the table of modules
        // doesn't.
        if round % 2 == 0 {
            refresh();
        }
        let place = common::symbol(library, "other_library") as usize;
        places.insert(place & !0xfff);
        if round % 2 == 0 {
            let (index, module) = modules::find(place).expect("just loaded");
            assert!(modules::is_loaded(index) && !module.build_id().is_empty());
            assert!(module.path.ends_with(format!("libgone{}.so", round % 3).as_bytes()));
            call(library);
        } else {
            refresh();
            call(library);
        }
        // SAFETY: a handle of `load`, nothing of which is used any more.
        unsafe { libc::dlclose(library) };
        refresh();
        assert!(modules::find(place).is_none(), "unloaded");
    }
    assert!(places.len() < 60, "addresses are used again");
    assert!(modules::count() < 200 && modules::lost() == 0);
}

#[test]
fn libraries_come_and_go() {
    come_and_go();
}

#[test]
fn the_same_without_glibcs_table() {
    if std::env::var_os("STRANDLINE_WITHOUT").is_some() {
        strandline_unwind::without_find_object();
        come_and_go();
        return;
    }
    // A process of its own, since that is for good.
    let status = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "the_same_without_glibcs_table"])
        .env("STRANDLINE_WITHOUT", "1")
        .status();
    assert!(status.expect("itself").success());
}

#[test]
fn threads_end_and_others_take_their_stacks() {
    refresh();
    for _ in 0..20 {
        let threads: Vec<_> = (0..10)
            .map(|i| {
                let size = (64 + 16 * i) << 10;
                let thread = std::thread::Builder::new().stack_size(size);
                thread.spawn(|| {
                    // libgcc is asked on the larger stacks of other tests.
                    let stack = StackCache::new();
                    let mut frames = 0;
                    let end = capture(stack.bounds().expect("the kernel tells"), |_| {
                        frames += 1;
                        true
                    });
                    assert_eq!(end, End::Outermost);
                    assert!(frames > 4, "{frames}");
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.expect("a thread").join().expect("no panic"));
    }
}

#[test]
fn bounds_are_kept() {
    refresh();
    let here = 0u64;
    let here = &raw const here as usize;
    // Less of the stack than is needed: it ends, and not by a fault.
    for bytes in [0, 8, 64, 256, 500] {
        let bounds = StackBounds { low: here - 8192, high: here + bytes };
        let mut frames = 0;
        let end = capture(bounds, |_| {
            frames += 1;
            true
        });
        assert_eq!(end, End::Lost);
        assert!(frames < 60);
    }
    let stack = StackCache::new();
    let bounds = stack.bounds().expect("the kernel tells");
    let mut frames = 0;
    let end = capture(bounds, |_| {
        frames += 1;
        frames < 3
    });
    assert_eq!((end, frames), (End::Stopped, 3));
}

/// Code made at run time: no rules, but a frame pointer.
#[test]
fn code_without_rules() {
    refresh();
    // push rbp; mov rbp, rsp; sub rsp, 64; call rdi; leave; ret
    let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x40, 0xff, 0xd7, 0xc9, 0xc3u8];
    extern "C" fn inner() {
        let stack = StackCache::new();
        let mut pcs = Vec::new();
        let end = capture(stack.bounds().expect("the kernel tells"), |frame| {
            pcs.push(frame.pc);
            true
        });
        assert_eq!(end, End::Outermost);
        let made = pcs.iter().position(|&pc| modules::find(pc).is_none());
        let made = made.expect("the made code is a frame");
        let above = pcs.get(made + 1).copied().expect("and not the last one");
        assert!(modules::find(above).is_some());
        assert!(pcs.len() > made + 4);
    }
    // SAFETY: a page of our own with the code above, which keeps to the System V ABI.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED);
        std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len());
        let f = std::mem::transmute::<*mut libc::c_void, extern "C" fn(extern "C" fn())>(page);
        f(inner);
        libc::munmap(page, 4096);
    }
}
