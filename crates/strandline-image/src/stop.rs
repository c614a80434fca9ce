//! Stopping a process without a signal: every thread is seized by ptrace and interrupted, and let
//! go when the value is dropped; the kernel lets go by itself when this process dies.
//!
//! Facts: PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_EVENT_STOP (ptrace(2)); all calls must come from
//! the thread that seized.

use std::collections::HashMap;
use std::io;

use crate::error::Error;

/// Registers of a thread that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// Stack pointer.
    pub stack_pointer: u64,
    /// Base of thread-local storage.
    pub tls: u64,
}

/// `PTRACE_EVENT_STOP` as waitid reports it.
const EVENT_STOP: i32 = 128;
/// Rounds of looking for new threads.
const ROUNDS: usize = 100;

/// A process that stands still.
pub struct Stopped {
    pid: i32,
    /// Threads that stand, each with a signal that it was about to get.
    threads: HashMap<i32, i32>,
    registers: Vec<(i32, Registers)>,
}

/// The ids of the threads of `pid`.
pub fn threads(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn ptrace(request: libc::c_uint, tid: i32, data: usize) -> io::Result<()> {
    // SAFETY: requests without an address; `data` is a number.
    let status = unsafe { libc::ptrace(request, tid, 0usize, data) };
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Waits until a seized thread stands; the event and the signal it stands for, or nothing if it
/// ended. Only the stop is taken, never the end: that of a child is for those who wait for it.
fn await_stop(tid: i32) -> Option<(i32, i32)> {
    loop {
        // SAFETY: an all-zero siginfo is a valid value, which waitid(2) fills in; `si_status` is
        // a field of what it reports.
        let waited = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WSTOPPED | libc::__WALL;
            let status = libc::waitid(libc::P_PID, tid as libc::id_t, &mut info, flags);
            (status == 0).then(|| info.si_status())
        };
        match waited {
            Some(status) => return Some((status >> 8, status & 0xff)),
            None if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            None => return None,
        }
    }
}

impl Stopped {
    /// Stops all threads of `pid`.
    pub fn new(pid: i32) -> Result<Self, Error> {
        let mut stopped = Stopped { pid, threads: HashMap::new(), registers: Vec::new() };
        for _ in 0..ROUNDS {
            let mut fresh = false;
            for tid in threads(pid) {
                if !stopped.threads.contains_key(&tid) {
                    fresh |= stopped.seize(tid)?;
                }
            }
            if !fresh {
                break;
            }
        }
        if stopped.threads.is_empty() {
            return Err(Error::Vanished(pid));
        }
        Ok(stopped)
    }

    /// Seizes one thread and waits until it stands; false if it ended.
    fn seize(&mut self, tid: i32) -> Result<bool, Error> {
        if let Err(e) = ptrace(libc::PTRACE_SEIZE, tid, 0) {
            return match e.raw_os_error() {
                Some(libc::ESRCH) => Ok(false),
                Some(libc::EPERM) => Err(denied(self.pid)),
                _ => Err(Error::Stop(self.pid, e)),
            };
        }
        // Noted at once: from here on it has to be let go.
        self.threads.insert(tid, 0);
        if let Err(e) = ptrace(libc::PTRACE_INTERRUPT, tid, 0) {
            self.threads.remove(&tid);
            return match e.raw_os_error() {
                Some(libc::ESRCH) => Ok(false),
                _ => Err(Error::Stop(self.pid, e)),
            };
        }
        let Some((event, signal)) = await_stop(tid) else {
            self.threads.remove(&tid);
            return Ok(false);
        };
        if event != EVENT_STOP {
            // It was about to get a signal: it gets it when it is let go. The interruption is
            // still pending and is dropped then.
            self.threads.insert(tid, signal);
        }
        if let Some(registers) = registers(tid) {
            self.registers.push((tid, registers));
        }
        Ok(true)
    }

    /// Registers of the threads that stand.
    pub fn registers(&self, tid: i32) -> Option<Registers> {
        self.registers.iter().find(|r| r.0 == tid).map(|r| r.1)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for (&tid, &signal) in &self.threads {
            // A thread that was killed meanwhile needs nothing.
            let _ = ptrace(libc::PTRACE_DETACH, tid, signal as usize);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn registers(tid: i32) -> Option<Registers> {
    let mut all = std::mem::MaybeUninit::<libc::user_regs_struct>::zeroed();
    let mut part = libc::iovec {
        iov_base: all.as_mut_ptr().cast(),
        iov_len: std::mem::size_of::<libc::user_regs_struct>(),
    };
    const PRSTATUS: usize = 1;
    // SAFETY: PTRACE_GETREGSET fills at most iov_len bytes of the structure, which any bits make
    // valid.
    let (status, all) = unsafe {
        let status = libc::ptrace(libc::PTRACE_GETREGSET, tid, PRSTATUS, &mut part);
        (status, all.assume_init())
    };
    (status >= 0).then_some(Registers { stack_pointer: all.rsp, tls: all.fs_base })
}

#[cfg(not(target_arch = "x86_64"))]
fn registers(_tid: i32) -> Option<Registers> {
    None
}

/// Says what is missing for the right to trace `pid`.
pub fn denied(pid: i32) -> Error {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<i64>().ok()
    };
    if let Some(tracer) = field("TracerPid:").filter(|&t| t != 0) {
        return Error::Traced { pid, tracer: tracer as i32 };
    }
    // SAFETY: geteuid(2) always succeeds.
    let me = i64::from(unsafe { libc::geteuid() });
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let why = match (field("Uid:"), scope.trim()) {
        (Some(owner), _) if owner != me && me != 0 => {
            format!("it belongs to user {owner}, this is user {me}; run as that user or as root")
        }
        (_, scope @ ("1" | "2" | "3")) if me != 0 => {
            format!("/proc/sys/kernel/yama/ptrace_scope is {scope}; run as root, or write 0 there")
        }
        _ => "the capability CAP_SYS_PTRACE is missing; run as root, in a container with \
              --cap-add SYS_PTRACE"
            .to_owned(),
    };
    Error::Denied { pid, why }
}
