//! Starting the target and waiting for it.
//!
//! Written with fork and exec rather than with `std::process`, which resets SIGPIPE: the target
//! must find everything as it would be without us, but for the two variables that name our files
//! (the agent takes them out again before the program can see them).

use std::ffi::{CString, OsStr};
use std::io;
use std::os::raw::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::null;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

use libc::{c_int, pid_t};

use crate::error::Error;
use crate::signals::{self, Blocked, Forwarding};
use crate::target::Target;

/// How the target ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(c_int),
    /// By this signal.
    Signal(c_int),
}

/// A running target.
pub struct Running {
    /// Its process id.
    pub pid: pid_t,
    /// Drops when the wait is over.
    _forwarding: Forwarding,
}

/// What a run has that the user's own environment doesn't give it.
#[derive(Debug, Default)]
pub struct Changes {
    /// Environment variables that are set, in place of those of the same name.
    pub variables: Vec<(&'static str, Vec<u8>)>,
    /// A library that is preloaded behind the agent.
    pub library: Option<PathBuf>,
    /// Descriptors of this process that become 0, 1 and 2.
    pub streams: [Option<c_int>; 3],
}

const PRELOAD: &[u8] = b"LD_PRELOAD=";
const CAPTURE: &[u8] = b"STRANDLINE_CAPTURE=";

/// The environment `of`, with the agent in front of what is preloaded, the capture's name, and
/// what `changes` says. Every other entry stays what and where it is.
fn environment(of: &[CString], agent: &str, capture: &str, changes: &Changes) -> Vec<Vec<u8>> {
    let mut out = Vec::with_capacity(of.len() + 2);
    let mut first = agent.as_bytes().to_vec();
    if let Some(library) = &changes.library {
        first.extend([b":", library.as_os_str().as_bytes()].concat());
    }
    let is_set = |entry: &[u8]| {
        let named = |name: &str| {
            entry.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
        };
        changes.variables.iter().any(|(name, _)| named(name))
    };
    let mut preloaded = false;
    for entry in of {
        let bytes = entry.as_bytes();
        if let Some(rest) = bytes.strip_prefix(PRELOAD).filter(|_| !preloaded) {
            preloaded = true;
            out.push([PRELOAD, &first, b":", rest].concat());
        } else if !bytes.starts_with(CAPTURE) && !is_set(bytes) {
            out.push(bytes.to_vec());
        }
    }
    if !preloaded {
        out.push([PRELOAD, &first].concat());
    }
    for (name, value) in &changes.variables {
        out.push([name.as_bytes(), b"=", value].concat());
    }
    out.push([CAPTURE, capture.as_bytes()].concat());
    out
}

extern "C" {
    static environ: *const *const c_char;
}

/// This process's environment, entries without `=` included.
fn own_environment() -> Vec<CString> {
    let mut out = Vec::new();
    // SAFETY: nothing in this process changes its environment; the array ends with a null
    // pointer, and its entries are C strings.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            out.push(std::ffi::CStr::from_ptr(*entry).to_owned());
            entry = entry.add(1);
        }
    }
    out
}

/// C strings and the array of pointers to them that exec wants.
struct Strings {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl Strings {
    fn new(of: impl Iterator<Item = Vec<u8>>) -> io::Result<Strings> {
        let strings = of.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([null()]).collect();
        Ok(Strings { pointers, _strings: strings })
    }
}

fn bytes(text: impl AsRef<OsStr>) -> Vec<u8> {
    text.as_ref().as_bytes().to_vec()
}

/// Starts the target with the agent inside. `agent` and `capture` are file names.
pub fn start(target: &Target, agent: &str, capture: &str) -> Result<Running, Error> {
    start_changed(target, agent, capture, &Changes::default())
}

/// `start`, with changes.
pub fn start_changed(
    target: &Target,
    agent: &str,
    capture: &str,
    changes: &Changes,
) -> Result<Running, Error> {
    let failed = |e: io::Error| Error::Start(target.file.clone(), e);
    let file = CString::new(bytes(&target.file)).map_err(|e| failed(e.into()))?;
    let arguments = Strings::new(target.arguments.iter().map(bytes)).map_err(failed)?;
    let variables = environment(&own_environment(), agent, capture, changes);
    let variables = Strings::new(variables.into_iter()).map_err(failed)?;
    let pipe = pipe().map_err(failed)?;
    let blocked = Blocked::new();
    // SAFETY: other threads may exist, but the child only makes async-signal-safe calls.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        blocked.restore_for_target();
        put_in_place(&changes.streams);
        become_target(&file, &arguments, &variables, pipe[1]);
    }
    let error = io::Error::last_os_error();
    close(pipe[1]);
    if pid < 0 {
        close(pipe[0]);
        blocked.release();
        return Err(failed(error));
    }
    // The pipe closes without a word when exec succeeds.
    let refused = read_errno(pipe[0]);
    close(pipe[0]);
    if let Some(errno) = refused {
        blocked.release();
        wait_for(pid);
        return Err(failed(io::Error::from_raw_os_error(errno)));
    }
    let forwarding = Forwarding::to(pid);
    blocked.release();
    Ok(Running { pid, _forwarding: forwarding })
}

/// In the child: makes the descriptors 0, 1 and 2 what they are to be. Async-signal-safe.
fn put_in_place(streams: &[Option<c_int>; 3]) {
    for (to, from) in (0..).zip(streams) {
        if let Some(from) = from {
            // SAFETY: dup2(2) on descriptors that stay open in the parent; the copy outlives exec.
            unsafe { libc::dup2(*from, to) };
        }
    }
}

/// In the child: executes the target, or tells why not and ends.
fn become_target(file: &CString, arguments: &Strings, variables: &Strings, tell: c_int) -> ! {
    // SAFETY: C strings and arrays that end with a null pointer; `file` has a slash, so nothing
    // is searched, but a script without `#!` is run by the shell, as a shell would.
    unsafe {
        libc::execvpe(file.as_ptr(), arguments.pointers.as_ptr(), variables.pointers.as_ptr());
        let errno = *libc::__errno_location();
        libc::write(tell, (&raw const errno).cast(), size_of::<c_int>());
        libc::_exit(127)
    }
}

fn pipe() -> io::Result<[c_int; 2]> {
    let mut ends = [0; 2];
    // SAFETY: pipe2(2) fills the array in.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ends)
}

fn close(fd: c_int) {
    // SAFETY: a descriptor of this module's own, not used after.
    unsafe { libc::close(fd) };
}

fn read_errno(fd: c_int) -> Option<c_int> {
    let mut errno: c_int = 0;
    // SAFETY: reads at most the size of `errno` into it.
    let n = unsafe { libc::read(fd, (&raw mut errno).cast(), size_of::<c_int>()) };
    (n == size_of::<c_int>() as isize).then_some(errno)
}

/// Reaps the child; `None` if there is none.
fn wait_for(pid: pid_t) -> Option<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid(2) writes the status.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            return Some(status);
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

impl Running {
    /// Waits until the target has ended or, while this process traces it, stands still. Takes
    /// nothing away: its process id stays taken, and the stop can still be waited for.
    fn has_ended(&self) -> bool {
        loop {
            // SAFETY: an all-zero siginfo is a valid value, which waitid(2) fills in.
            let (done, code) = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let flags = libc::WEXITED | libc::WNOWAIT;
                let status = libc::waitid(libc::P_PID, self.pid as libc::id_t, &mut info, flags);
                (status == 0, info.si_code)
            };
            if done {
                return matches!(code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED);
            }
            if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                return true;
            }
        }
    }

    /// Waits for the target's end, and kills it if that doesn't come within `limit`; true if so.
    pub fn wait_at_most(self, limit: Duration) -> Result<(Ended, bool), Error> {
        let pid = self.pid;
        let (end, ended) = channel::<()>();
        let watchdog = signals::held_back(|| {
            std::thread::Builder::new().spawn(move || {
                let late = ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
                if late {
                    // SAFETY: kill(2) on our own child, which is only reaped when this thread has
                    // ended.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
                late
            })
        });
        let _ = self.has_ended();
        drop(end);
        // Without a thread there is no limit.
        let late = watchdog.is_ok_and(|w| w.join().unwrap_or(false));
        self.wait().map(|ended| (ended, late))
    }

    /// Waits for the target's end.
    pub fn wait(self) -> Result<Ended, Error> {
        while !self.has_ended() {
            // It only stood still: a census is being taken, and the thread that takes it is about
            // to see the stop.
            std::thread::sleep(Duration::from_millis(1));
        }
        Forwarding::stop();
        let status =
            wait_for(self.pid).ok_or_else(|| Error::Wait(self.pid, io::Error::last_os_error()))?;
        Ok(if libc::WIFSIGNALED(status) {
            Ended::Signal(libc::WTERMSIG(status))
        } else {
            Ended::Code(libc::WEXITSTATUS(status))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(of: &[&str]) -> Vec<String> {
        made_with(of, &Changes::default())
    }

    fn made_with(of: &[&str], changes: &Changes) -> Vec<String> {
        let of: Vec<CString> = of.iter().map(|e| CString::new(*e).unwrap()).collect();
        let out = environment(&of, "/proc/1/fd/4", "/proc/1/fd/3", changes);
        out.into_iter().map(|e| String::from_utf8(e).unwrap()).collect()
    }

    #[test]
    fn the_environment_gets_two_variables() {
        let added = ["LD_PRELOAD=/proc/1/fd/4", "STRANDLINE_CAPTURE=/proc/1/fd/3"];
        assert_eq!(made(&["A=b", "odd"]), [&["A=b", "odd"][..], &added].concat());
        assert_eq!(
            made(&["LD_PRELOAD=x.so:y.so", "A=b", "STRANDLINE_CAPTURE=old"]),
            ["LD_PRELOAD=/proc/1/fd/4:x.so:y.so", "A=b", added[1]]
        );
        // The agent gives back the empty value that was there.
        assert_eq!(made(&["LD_PRELOAD="])[0], "LD_PRELOAD=/proc/1/fd/4:");
    }
    #[test]
    fn changes_take_the_place_of_what_was_set() {
        let changes = Changes {
            variables: vec![("MALLOC_ARENA_MAX", b"1".to_vec()), ("B", b"2".to_vec())],
            library: Some("/usr/lib/liballocator.so".into()),
            streams: [None; 3],
        };
        let made = made_with(&["MALLOC_ARENA_MAX=8", "MALLOC_ARENA_MAXI=8", "A=b"], &changes);
        let preload = "LD_PRELOAD=/proc/1/fd/4:/usr/lib/liballocator.so";
        let capture = "STRANDLINE_CAPTURE=/proc/1/fd/3";
        let all = ["MALLOC_ARENA_MAXI=8", "A=b", preload, "MALLOC_ARENA_MAX=1", "B=2", capture];
        assert_eq!(made, all);
        let made = made_with(&["LD_PRELOAD=x.so"], &changes);
        assert_eq!(made[0], format!("{preload}:x.so"));
    }
}
