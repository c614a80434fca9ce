//! Where the report goes: stderr or stdout, or a file that does not exist yet.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A place that was found good before the program started.
#[derive(Debug)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A device.
    Device(PathBuf, File),
    /// A file in the right directory that gets its name when the report is complete.
    Unnamed(PathBuf, File),
    /// A file that was made at once, where files can't be made without a name.
    Named(PathBuf, File),
}

impl Output {
    /// Prepares to write to `path`, or to stderr.
    pub fn prepare(path: Option<&Path>) -> Result<Output, Error> {
        let Some(path) = path else { return Ok(Output::Stderr) };
        let failed = |e: io::Error| Error::Output(path.to_owned(), e);
        match path.symlink_metadata() {
            Ok(_) => {
                // /dev/null, a terminal: writing there overwrites nothing.
                let is_device = path.metadata().is_ok_and(|m| m.file_type().is_char_device());
                if !is_device {
                    return Err(Error::OutputExists(path.to_owned()));
                }
                let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
                return Ok(Output::Device(path.to_owned(), file));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        // "x/" and "" name no file.
        let named = !path.as_os_str().as_bytes().ends_with(b"/") && path.file_name().is_some();
        if !named {
            return Err(failed(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unnamed =
            OpenOptions::new().write(true).mode(0o666).custom_flags(libc::O_TMPFILE).open(parent);
        match unnamed {
            Ok(file) => Ok(Output::Unnamed(path.to_owned(), file)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                let file = OpenOptions::new().write(true).create_new(true).open(path);
                Ok(Output::Named(path.to_owned(), file.map_err(failed)?))
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Nothing will be written: leaves nothing behind.
    pub fn give_up(self) {
        if let Output::Named(path, _) = self {
            // It is our own empty file; if it can't be removed now there is nobody to tell.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Writes the report.
    pub fn write(self, report: &str) -> Result<(), Error> {
        match self {
            Output::Stderr if crate::signals::stderr_was_closed() => {
                Err(Error::Stderr(io::Error::from_raw_os_error(libc::EBADF)))
            }
            Output::Stderr => {
                let mut stderr = io::stderr();
                let done = stderr.write_all(report.as_bytes()).and_then(|()| stderr.flush());
                done.map_err(Error::Stderr)
            }
            Output::Stdout => {
                let mut stdout = io::stdout();
                let done = stdout.write_all(report.as_bytes()).and_then(|()| stdout.flush());
                match done {
                    // `strandline census 4711 | head` is no failure.
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    done => done.map_err(Error::Stdout),
                }
            }
            Output::Device(path, mut file) | Output::Named(path, mut file) => {
                file.write_all(report.as_bytes()).map_err(|e| Error::Output(path, e))
            }
            Output::Unnamed(path, mut file) => {
                let done = file.write_all(report.as_bytes()).and_then(|()| give_name(&file, &path));
                done.map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists => Error::OutputExists(path),
                    _ => Error::Output(path, e),
                })
            }
        }
    }
}

/// Links a file without a name to `path`; fails if there is one by then.
fn give_name(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: linkat(2) with two C strings that outlive the call.
    let status = unsafe {
        let cwd = libc::AT_FDCWD;
        libc::linkat(cwd, from.as_ptr(), cwd, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_complete_and_are_never_overwritten() {
        let dir = std::env::temp_dir().join(format!("strandline-test-out-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("report");
        let one = Output::prepare(Some(&path)).unwrap();
        let two = Output::prepare(Some(&path)).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        one.write("one\n").unwrap();
        assert!(matches!(two.write("two\n"), Err(Error::OutputExists(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        let text = Output::prepare(Some(&path)).unwrap_err().to_string();
        assert!(text.contains("exists already"), "{text}");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("gone", &path).unwrap();
        assert!(matches!(Output::prepare(Some(&path)), Err(Error::OutputExists(_))));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn places_that_cannot_be_written_are_named() {
        for path in ["/no/such/dir/report", "/dev/null/x", "report-that-is-a-dir/", ""] {
            let text = Output::prepare(Some(Path::new(path))).unwrap_err().to_string();
            assert!(text.starts_with(path) && !text.contains('\n'), "{text}");
        }
        let text = Output::prepare(Some(Path::new("/"))).unwrap_err().to_string();
        assert!(text.starts_with("/: exists already"), "{text}");
        Output::prepare(Some(Path::new("/dev/null"))).unwrap().write("x").unwrap();
    }
}
