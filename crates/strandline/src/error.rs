//! What can go wrong on our side: one line each, which names the thing and what can be done.

use std::io;
use std::path::PathBuf;

/// Exit code for failures of strandline itself, as opposed to the program's.
pub const OUR_FAILURE: u8 = 125;

/// A failure of strandline itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: there is no such script; check the name and the current directory", .0.display())]
    ScriptMissing(PathBuf),
    #[error("{}: a directory without a __main__.py can't be run; name the script in it", .0.display())]
    ScriptDirectory(PathBuf),
    #[error("{}: the script can't be read: {}; check its permissions", .0.display(), reason(.1))]
    ScriptUnreadable(PathBuf, io::Error),
    #[error("{}: no such command on PATH; check the name, or give its path", .0.display())]
    CommandNotFound(PathBuf),
    #[error("{}: there is no such program; check the path", .0.display())]
    ProgramMissing(PathBuf),
    #[error("{}: not an executable file; check its permissions (chmod +x)", .0.display())]
    NotExecutable(PathBuf),
    #[error("{}: a directory, not a program; name the program in it", .0.display())]
    ProgramDirectory(PathBuf),
    #[error("no python3 or python on PATH; name an interpreter with --python")]
    NoPython,
    #[error("{}: neither a program nor a script that starts with #!; name a Python", .0.display())]
    NotAProgram(PathBuf),
    #[error("{}: made for {}, strandline only sees into programs for {}; use a Python for it", .0.display(), .1, .2)]
    Architecture(PathBuf, String, &'static str),
    #[error("{}: strandline can't see into a statically linked program; use a dynamically linked Python", .0.display())]
    Static(PathBuf),
    #[error("{}: strandline can't see into programs for musl's libc; use a Python for glibc", .0.display())]
    Musl(PathBuf),
    #[error("{}: exists already and is not overwritten; remove it or choose another name", .0.display())]
    OutputExists(PathBuf),
    #[error("{}: exists already and is not overwritten; remove it, choose another name with -o, or use --force", .0.display())]
    ProfileExists(PathBuf),
    #[error("{}: not a regular file, and is not replaced; name another one", .0.display())]
    NotAFile(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    Profile(PathBuf, strandline_profile::FileError),
    #[error("{}: {}", .0.display(), .1)]
    Page(PathBuf, strandline_flame::FlameError),
    #[error("{}: {}", .0.display(), .1)]
    Export(PathBuf, strandline_export::ExportError),
    #[error("{0} is not text: name a file with -o, or send it to another program")]
    NotForTerminals(&'static str),
    #[error("no thread can be started to record the run: {}; raise ulimit -u or free some memory", reason(.0))]
    Thread(io::Error),
    #[error("the thread that recorded the run died; the last profile that it wrote stays")]
    RecorderDied,
    #[error("{}: the profile can't be written there: {}; what stays is the last one that was written while the program ran; make room, or name another place with -o", .0.display(), reason(.1))]
    ProfileStays(PathBuf, io::Error),
    #[error("{}: the report can't be written there: {}; choose another place", .0.display(), reason(.1))]
    Output(PathBuf, io::Error),
    #[error("the report can't be written to stderr: {}; use -o FILE", reason(.0))]
    Stderr(io::Error),
    #[error("no shared file can be made for the {what}: memfd_create: {}, {}: {}; make room or set TMPDIR", reason(.memfd), .directory.display(), reason(.file))]
    Shared { what: &'static str, memfd: io::Error, directory: PathBuf, file: io::Error },
    #[error("the capture can't be set up: {}; check the limit on file sizes (ulimit -f)", reason(.0))]
    CaptureSize(io::Error),
    #[error("the shared file of the {what} can't be written: {}; free some memory", reason(.source))]
    SharedWrite { what: &'static str, source: io::Error },
    #[error("the capture can't be watched: {}; free some memory", reason(.0))]
    SharedMap(io::Error),
    #[error("process {0} asked for a census, but isn't the one that has the agent: is it in another pid namespace?")]
    NotOurs(u32),
    #[error("the program's input and output can't be set up: {}; close some files or raise ulimit -n", reason(.0))]
    Streams(io::Error),
    #[error("nothing was measured: no Python was seen that strandline can be preloaded into; name one with `-- python3 ...`")]
    NoPythonSeen,
    #[error("nothing was measured: process {0} was killed or replaced before its end; it has to end by itself")]
    EndNotSeen(u32),
    #[error("{}: can't be started: {}", .0.display(), reason(.1))]
    Start(PathBuf, io::Error),
    #[error("process {} can't be waited for: {}; its report is lost", .0, reason(.1))]
    Wait(i32, io::Error),
    #[error("{0}; the report is lost")]
    Capture(#[from] strandline_capture::read::ReadError),
    #[error("{0}")]
    Image(#[from] strandline_image::Error),
    #[error("process {0} doesn't run under strandline: start the program with `strandline run`, then its memory can be given back from outside")]
    NotUnderUs(i32),
    #[error("process {0} runs under another version of strandline: use that one")]
    OtherVersion(i32),
    #[error("process {0} runs under strandline but has no agent that takes requests: it is no CPython that strandline knows, is about to exit, or is a child that isn't followed")]
    NotRecorded(i32),
    #[error("process {0}: the kernel doesn't allow to look into it; run as its user or as root")]
    NotAllowed(i32),
    #[error("process {0}: can't be entered: {reason}", reason = reason(.1))]
    Enter(i32, io::Error),
    #[error("process {0} ended before it was done")]
    Gone(i32),
    #[error(
        "process {0}: another strandline has something done in it; try again when that is through"
    )]
    Busy(i32),
    #[error("process {0} did not come to a safe point within {1} seconds: nothing was done; it runs C code without a pause, or waits with the GIL held; try again, or call strandline.trim() in it")]
    NoSafePlace(i32, u64),
    #[error("process {0} has not done it within {1} seconds: another thread doesn't give the GIL away, or it takes long; it will still be done")]
    NotDone(i32, u64),
    #[error("{}: not a census: {}; give a process id, or a file that `strandline census PID --json` wrote", .0.display(), .1)]
    CensusFile(PathBuf, String),
    #[error("{}: only one process can be explained at a time; give one process id, or censuses in files", .0.display())]
    OneProcess(PathBuf),
    #[error("there is nothing to explain: give a process id, a core file or a census in a file")]
    NothingToExplain,
    #[error("{}: the profile can't be read: {}; check the name and its permissions", .0.display(), reason(.1))]
    ProfileUnreadable(PathBuf, io::Error),
    #[error("{}: {}", .0.display(), .1)]
    ProfileFile(PathBuf, strandline_profile::FileError),
    #[error("{}: has no single events in it; run the program with --stacks --events", .0.display())]
    NoEvents(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    View(PathBuf, strandline_views::ViewError),
    #[error("the report can't be written to stdout: {}; use -o FILE", reason(.0))]
    Stdout(io::Error),
    #[error("the report can't be turned into JSON: {0}; leave out --json for the text")]
    Json(String),
}

/// The operating system's words without Rust's "(os error 2)".
pub fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text.get(..end).unwrap_or(&text).to_owned()
}

impl Error {
    /// Prints the error as one line on stderr, if there is one.
    pub fn print(&self) {
        say(&self.to_string());
    }
}

/// One line on stderr, if there is one.
pub fn say(text: &str) {
    use std::io::Write;
    let line = format!("strandline: {text}").replace(['\n', '\r'], " ");
    // Nothing is left to be done if stderr is closed.
    let _ = writeln!(io::stderr(), "{line}");
}
