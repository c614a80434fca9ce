//! Finding the files that tell about a library, and making sure that they are the right ones.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use object::Object;

/// Why a library's addresses can't be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// There is no such file, nor a debug file with its build id.
    #[error("{path}: not found, and no debug file with its build id{build_id} either")]
    NotFound {
        /// The library.
        path: String,
        /// Its build id, in hexadecimal after a space.
        build_id: String,
    },
    /// The file is another build than the one that ran.
    #[error("{path}: not used, it isn't the file that ran: its build id is {found}, recorded was {recorded}")]
    OtherBuild {
        /// The library.
        path: String,
        /// Build id of the one that ran, hexadecimal.
        recorded: String,
        /// Build id of the one that is there, hexadecimal, or "none".
        found: String,
    },
    /// The file is there, but can't be read.
    #[error("{path}: can't be read: {cause}")]
    Unreadable {
        /// The library.
        path: String,
        /// What went wrong.
        cause: String,
    },
}

/// The files that tell about a library.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The library itself.
    pub(crate) library: Option<PathBuf>,
    /// Its separate debug file.
    pub(crate) debug: Option<PathBuf>,
}

/// Where distributions put debug files.
const SYSTEM: &str = "/usr/lib/debug";

/// Finds the files. `dirs` are searched before the system's directory for debug files.
pub(crate) fn find(path: &str, build_id: &[u8], dirs: &[PathBuf]) -> Result<Files, LookUpError> {
    let mut files = Files { library: None, debug: debug_file(build_id, dirs) };
    let mut problem = None;
    for candidate in candidates(path, dirs) {
        match matches(&candidate, path, build_id) {
            Ok(()) => {
                files.library = Some(candidate);
                break;
            }
            // The first file that is there and doesn't do tells most.
            Err(Some(error)) => problem = problem.or(Some(error)),
            Err(None) => {}
        }
    }
    if files != Files::default() {
        return Ok(files);
    }
    let id = if build_id.is_empty() { String::new() } else { format!(" {}", hex(build_id)) };
    Err(problem.unwrap_or(LookUpError::NotFound { path: path.into(), build_id: id }))
}

/// Files that may be the library: in the given directories under its whole path (a copy of the
/// other machine's file system) or its name, and where it was.
fn candidates(path: &str, dirs: &[PathBuf]) -> Vec<PathBuf> {
    let relative = path.trim_start_matches('/');
    let name = Path::new(path).file_name();
    let mut all = Vec::new();
    for dir in dirs {
        all.push(dir.join(relative));
        all.extend(name.map(|n| dir.join(n)));
    }
    all.push(PathBuf::from(path));
    all
}

/// Checks that `file` is the library `path`; an error without text: there is no such file.
fn matches(file: &Path, path: &str, build_id: &[u8]) -> Result<(), Option<LookUpError>> {
    if !file.is_file() {
        return Err(None);
    }
    let shown = file.display().to_string();
    let found = read_build_id(file)
        .map_err(|cause| Some(LookUpError::Unreadable { path: shown.clone(), cause }))?;
    // Without a recorded one there is nothing to compare; then only the file of that very path
    // can be meant.
    let same = if build_id.is_empty() {
        found.is_none() && Path::new(path) == file
    } else {
        found.as_deref() == Some(build_id)
    };
    if same {
        return Ok(());
    }
    let name = |id: &[u8]| if id.is_empty() { "none".into() } else { hex(id) };
    Err(Some(LookUpError::OtherBuild {
        path: shown,
        recorded: name(build_id),
        found: name(&found.unwrap_or_default()),
    }))
}

/// The debug file with a build id: `.build-id/xx/yyyy.debug` (GDB manual, "Separate Debug
/// Files").
pub(crate) fn debug_file(build_id: &[u8], dirs: &[PathBuf]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    let name = format!("{first:02x}/{}.debug", hex(rest));
    let right = |file: &PathBuf| {
        file.is_file() && read_build_id(file).is_ok_and(|id| id.as_deref() == Some(build_id))
    };
    let in_dir = |dir: &Path| [dir.join(".build-id").join(&name), dir.join(&name)];
    let dirs = dirs.iter().map(PathBuf::as_path).chain([Path::new(SYSTEM)]);
    dirs.flat_map(in_dir).find(right)
}

/// A file's bytes.
pub(crate) fn map(file: &Path) -> Result<Mmap, String> {
    let file = File::open(file).map_err(|e| e.to_string())?;
    // SAFETY: a private mapping of a library or debug file, which package managers replace and
    // never change in place.
    unsafe { Mmap::map(&file) }.map_err(|e| e.to_string())
}

fn read_build_id(file: &Path) -> Result<Option<Vec<u8>>, String> {
    let bytes = map(file)?;
    let object = object::File::parse(&*bytes).map_err(|e| e.to_string())?;
    let id = object.build_id().map_err(|e| e.to_string())?;
    Ok(id.map(<[u8]>::to_vec))
}

/// The file that holds what a debug file shares with others (`.gnu_debugaltlink`, DWARF 5,
/// 7.3.6 "supplementary object file"; made by dwz).
pub(crate) fn shared_debug_file(file: &Path, dirs: &[PathBuf]) -> Option<PathBuf> {
    let bytes = map(file).ok()?;
    let object = object::File::parse(&*bytes).ok()?;
    let (name, id) = object.gnu_debugaltlink().ok()??;
    let name = Path::new(std::str::from_utf8(name).ok()?);
    let beside = file.parent().map(|dir| dir.join(name)).filter(|f| f.is_file());
    let right = |f: &PathBuf| read_build_id(f).is_ok_and(|found| found.as_deref() == Some(id));
    beside.filter(right).or_else(|| debug_file(id, dirs))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
