//! Where a profile goes: a file that is replaced as a whole, and never one that was there before.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use strandline_profile::{FileError, Profile};
use tempfile::NamedTempFile;

use super::log::Log;
use super::Written;
use crate::error::Error;

/// See the module.
pub struct Place {
    path: PathBuf,
    /// The file at `path` is ours, or may be overwritten.
    ours: bool,
}

impl Place {
    /// A place whose directory can be written to and that is free, or may be overwritten
    /// (`force`).
    pub fn prepare(path: &Path, force: bool) -> Result<Place, Error> {
        let failed = |e: io::Error| Error::Output(path.to_owned(), e);
        if path.is_dir() || path.file_name().is_none() {
            return Err(failed(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        if !force && path.symlink_metadata().is_ok() {
            return Err(Error::ProfileExists(path.to_owned()));
        }
        // A link stays: what it points to is overwritten. A device or a pipe is never replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.metadata().is_ok_and(|m| !m.is_file()) {
            return Err(Error::NotAFile(path));
        }
        let place = Place { path, ours: force };
        place.temporary().map_err(failed)?;
        Ok(place)
    }

    /// The same, to be overwritten only if `force`.
    pub fn unforced(self, force: bool) -> Place {
        Place { ours: force, ..self }
    }

    /// The same directory under the usual name, once the process id is known: a free name, should
    /// another run have had the same id.
    pub fn named_for(self, program: &str, pid: u32) -> Place {
        let usual = usual_name(program, pid);
        let names = (2..100).map(|n| usual.with_extension(format!("{n}.strand")));
        let is_free = |path: &PathBuf| self.ours || path.symlink_metadata().is_err();
        let path = std::iter::once(usual.clone()).chain(names).find(is_free).unwrap_or(usual);
        Place { path, ..self }
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty());
        tempfile::Builder::new()
            .prefix(".strandline-")
            .suffix(".tmp")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(parent.unwrap_or(Path::new(".")))
    }

    /// Writes a profile, in the place of the last one.
    pub fn write(&mut self, profile: &Profile) -> Result<Written, Error> {
        let path = self.path.clone();
        self.write_with(|to| {
            strandline_profile::write(profile, to).map_err(|e| match e {
                FileError::Io(e) => Error::Output(path, e),
                e => Error::Profile(path, e),
            })
        })
    }

    /// Writes a whole file, in the place of the last one.
    pub fn write_with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<Written, Error> {
        let (_, bytes) = self.put(write)?;
        Ok(Written { path: self.path.clone(), bytes })
    }

    /// Writes a profile, in the place of the last one, and appends to it from then on.
    pub fn grow(&mut self, profile: &Profile) -> Result<Log, Error> {
        let path = self.path.clone();
        let (file, _) = self.put(|to| {
            strandline_profile::write(profile, to).map_err(|e| Error::Profile(path, e))
        })?;
        Log::new(file).map_err(|e| Error::Output(self.path.clone(), e))
    }

    /// Where the profile is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn put(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(File, u64), Error> {
        let failed = |e: io::Error| Error::Output(self.path.clone(), e);
        let file = self.temporary().map_err(failed)?;
        let mut to = BufWriter::new(file);
        write(&mut to)?;
        to.flush().map_err(failed)?;
        let file = to.into_inner().map_err(|e| failed(e.into_error()))?;
        let bytes = file.as_file().metadata().map_err(failed)?.len();
        let done =
            if self.ours { file.persist(&self.path) } else { file.persist_noclobber(&self.path) };
        let file = done.map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => Error::ProfileExists(self.path.clone()),
            _ => failed(e.error),
        })?;
        self.ours = true;
        Ok((file, bytes))
    }
}

/// `strandline-<script>.<pid>.strand`, as it is named without `-o`.
pub fn usual_name(program: &str, pid: u32) -> PathBuf {
    let name = Path::new(program).file_name().map(|n| n.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let stem = name.strip_suffix(".py").unwrap_or(&name);
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let stem: String = stem.chars().map(plain).take(80).collect();
    let stem = if stem.is_empty() { "python".to_owned() } else { stem };
    PathBuf::from(format!("strandline-{stem}.{pid}.strand"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for (program, name) in [
            ("/srv/app/main.py", "strandline-main.7.strand"),
            ("json.tool", "strandline-json.tool.7.strand"),
            ("", "strandline-python.7.strand"),
            ("a b;c.py", "strandline-a_b_c.7.strand"),
            ("-", "strandline--.7.strand"),
        ] {
            assert_eq!(usual_name(program, 7), Path::new(name));
        }
    }

    #[test]
    fn what_was_there_is_never_overwritten_but_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.strand");
        let mut place = Place::prepare(&path, false).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(place.write(&Profile::default()), Err(Error::ProfileExists(_))));
        assert!(matches!(Place::prepare(&path, false), Err(Error::ProfileExists(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        let mut place = Place::prepare(&path, true).unwrap();
        for _ in 0..2 {
            let written = place.write(&Profile::default()).unwrap();
            assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        let free = Place { path: PathBuf::new(), ours: false }.named_for("app.py", 7);
        assert_eq!(free.path, Path::new("strandline-app.7.strand"));
        assert!(Place::prepare(Path::new("/no/such/dir/x.strand"), false).is_err());
        assert!(Place::prepare(dir.path(), true).is_err());
        assert!(matches!(Place::prepare(Path::new("/dev/null"), true), Err(Error::NotAFile(_))));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Place::prepare(&link, true).unwrap().write(&Profile::default()).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }
}
