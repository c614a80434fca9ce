//! A profile that grows: blocks are only ever appended to its file (`run --events`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

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
        // Passing a limit on file sizes raises a signal, which kills by default.
        let _ignored = crate::signals::Ignored::new(libc::SIGXFSZ);
        let done = self.file.write_all_at(blocks, *length);
        match done {
            Ok(()) => *length += blocks.len() as u64,
            // A part of a block would end every reader's way.
            Err(_) => self.file.set_len(*length)?,
        }
        done
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        *self.length.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
