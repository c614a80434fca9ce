//! A profile that grows: blocks are only ever appended to its file (`run --events`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use strandline_profile::events::Tags;
use strandline_profile::{FileError, Profile};

use super::Written;
use crate::error::Error;

/// See the module.
pub struct Log {
    file: File,
    /// Bytes of whole blocks.
    length: Mutex<u64>,
}

impl Log {
    /// Goes on behind what `file` has.
    pub fn new(file: File) -> io::Result<Log> {
        let length = file.metadata()?.len();
        Ok(Log { file, length: Mutex::new(length) })
    }

    /// Appends whole blocks, or nothing.
    pub fn append(&self, blocks: &[u8]) -> io::Result<()> {
        let mut length = self.length.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.file.write_all_at(blocks, *length);
        match done {
            Ok(()) => *length += blocks.len() as u64,
            // A part of a block would end every reader's way.
            Err(_) => self.file.set_len(*length)?,
        }
        done
    }

    /// Appends the profile as it is now to the file, which is at `path`; `tags`: of each process.
    pub fn append_profile(
        &self,
        profile: &Profile,
        tags: &[Tags],
        path: &Path,
    ) -> Result<Written, Error> {
        let mut blocks = Vec::new();
        strandline_profile::write_again(profile, tags, &mut blocks)
            .and_then(|()| Ok(self.append(&blocks)?))
            .map_err(|e| match e {
                FileError::Io(e) => Error::Output(path.to_owned(), e),
                e => Error::Profile(path.to_owned(), e),
            })?;
        Ok(Written { path: path.to_owned(), bytes: self.length() })
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        *self.length.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
