//! What the tests share: compiling C, and libgcc's opinion.
#![allow(dead_code, missing_docs)]

pub mod truth;

use std::ffi::{c_char, c_void, CString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fresh directory below cargo's own for tests.
pub fn directory(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// Compiles `sources` of tests/native into a shared library.
pub fn compile(compiler: &str, flags: &[&str], sources: &[&str], library: &Path, with: &[&Path]) {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native");
    let status = Command::new(compiler)
        .args(["-shared", "-fPIC", "-g1", "-Wl,-z,lazy", "-Wl,--build-id", "-o"])
        .arg(library)
        .args(flags)
        .args(sources.iter().map(|s| native.join(s)))
        .args(with)
        .status()
        .expect("a compiler");
    assert!(status.success(), "{compiler} {flags:?} {sources:?}");
}

/// Loads a library.
pub fn load(path: &Path) -> *mut c_void {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero");
    // SAFETY: dlopen(3) of a library made by `compile`, whose constructors do nothing.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{}", path.display());
    handle
}

/// Address of a symbol.
pub fn symbol(library: *mut c_void, name: &str) -> *mut c_void {
    let name = CString::new(name).expect("no zero");
    // SAFETY: dlsym(3) on a handle from `load`.
    let p = unsafe { libc::dlsym(library, name.as_ptr() as *const c_char) };
    assert!(!p.is_null());
    p
}
