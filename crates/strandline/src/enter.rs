//! Having something done inside a process that runs under strandline: finds its part of the capture
//! in its memory, and sends one of its threads to the agent's trampoline
//! (`strandline-agent`, `control`), which does it and goes on where the thread was.
//!
//! The thread is stopped by ptrace for some ten µs, and only one at a time. Where a thread may be
//! used is said in the agent's module. If this process dies at any moment, the kernel lets the
//! thread go, and it is either where it was or on its way through the trampoline.
//!
//! Facts: system calls that a signal has interrupted and that are to be made again leave one of
//! four codes in rax (include/linux/errno.h) while a tracer looks; what the kernel makes of them is
//! in arch_do_signal_or_restart (arch/x86/kernel/signal.c, Linux 2.6 to 6.18). epoll_wait ends
//! with EINTR (signal(7)).

use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use strandline_capture::layout::{self, Control, Header, Region, RegionHead};

use crate::error::Error;

/// How long to look for a place where the process can be entered, and to wait until it is done
/// once it was.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between two looks at a process that is nowhere where it can be entered.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// System calls that may be left for something else and made again: they wait for others, and
/// CPython has given the GIL away around them.
const WAITING: [i64; 18] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pause,
    libc::SYS_epoll_pwait2,
];

/// ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND: made again as it was.
const AGAIN: [i64; 3] = [-512, -513, -514];
/// ERESTART_RESTARTBLOCK: gone on with by restart_syscall, which knows the time that is left.
const GO_ON: i64 = -516;
const EINTR: i64 = -(libc::EINTR as i64);
/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// How much code in front of where a call returns to is looked at.
const CODE_BYTES: usize = 20;
/// FUTEX_WAIT_BITSET without its flags: what waits for semaphores, conditions and the ends of
/// threads (glibc sysdeps/nptl/futex-internal.c), but never for a lock of malloc's.
const FUTEX_WAIT_BITSET: u32 = 9;
/// How far up the stack the wait for a lock of Python's is looked for, in words.
const STACK_WORDS: usize = 96;

/// A process that can be entered.
pub struct Process {
    pid: i32,
    memory: File,
    /// Address of its `Control`.
    control: u64,
}

/// What a line of /proc/PID/maps says.
struct Map<'a> {
    start: u64,
    end: u64,
    flags: &'a str,
    offset: u64,
    device: &'a str,
    inode: &'a str,
}

fn map_of(line: &str) -> Option<Map<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Map {
        start: number(start)?,
        end: number(end)?,
        flags: words.next()?,
        offset: number(words.next()?)?,
        device: words.next()?,
        inode: words.next()?,
    })
}

impl Process {
    /// Finds the agent in process `pid`.
    pub fn find(pid: i32) -> Result<Process, Error> {
        let here = |name: &str| format!("/proc/{pid}/{name}");
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::Image(strandline_image::Error::Missing(pid)),
            io::ErrorKind::PermissionDenied => Error::NotAllowed(pid),
            _ if e.raw_os_error() == Some(libc::ESRCH) => Error::Gone(pid),
            _ => Error::Enter(pid, e),
        };
        let maps = std::fs::read_to_string(here("maps")).map_err(failed)?;
        let memory = File::options().read(true).write(true).open(here("mem")).map_err(failed)?;
        let maps: Vec<Map> = maps.lines().filter_map(map_of).collect();
        let shared = || maps.iter().filter(|m| m.flags.starts_with("rw") && m.flags.ends_with('s'));
        let header = shared().find(|m| {
            let long = m.offset == 0 && m.end - m.start >= size_of::<Header>() as u64;
            long && number(&memory, m.start + offset_of!(Header, magic) as u64) == layout::MAGIC
        });
        let header = header.ok_or(Error::NotUnderUs(pid))?;
        let version = number(&memory, header.start + offset_of!(Header, version) as u64) as u32;
        if version != layout::VERSION {
            return Err(Error::OtherVersion(pid));
        }
        let region = shared().find(|m| {
            let same = (m.device, m.inode) == (header.device, header.inode);
            same && m.offset >= layout::HEADER_BYTES as u64
        });
        let head = region.ok_or(Error::NotRecorded(pid))?.start + offset_of!(Region, head) as u64;
        let control = head + offset_of!(RegionHead, control) as u64;
        let process = Process { pid, memory, control };
        if process.field(offset_of!(Control, trampoline)) == 0 {
            return Err(Error::NotRecorded(pid));
        }
        Ok(process)
    }

    fn field(&self, offset: usize) -> u64 {
        number(&self.memory, self.control + offset as u64)
    }

    fn state(&self) -> u32 {
        self.field(offset_of!(Control, state)) as u32
    }

    fn set(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, self.control + offset as u64)
    }

    /// Has a remedy done (`REMEDY_*`) and waits until it is.
    pub fn apply(&self, remedy: u32) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        let mut pause = PAUSES[0];
        loop {
            if self.send(remedy)? && self.wait()? {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Error::NoSafePlace(self.pid, PATIENCE.as_secs()));
            }
            std::thread::sleep(pause);
            pause = (pause * 5 / 4).min(PAUSES[1]);
        }
    }

    /// Waits until what a thread was sent to do is done; false if it could not do it there.
    fn wait(&self) -> Result<bool, Error> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.state() {
                layout::CONTROL_DONE => return Ok(true),
                layout::CONTROL_REFUSED => return Ok(false),
                layout::CONTROL_SENT if Instant::now() > end => {
                    return Err(Error::NotDone(self.pid, PATIENCE.as_secs()))
                }
                layout::CONTROL_SENT => std::thread::sleep(PAUSES[0]),
                _ => return Err(Error::Gone(self.pid)),
            }
        }
    }

    /// Sends a thread, if there is one that can be sent.
    fn send(&self, remedy: u32) -> Result<bool, Error> {
        if self.state() == layout::CONTROL_SENT {
            return Err(Error::Busy(self.pid));
        }
        let mut threads: Vec<i32> = std::fs::read_dir(format!("/proc/{}/task", self.pid))
            .map_err(|_| Error::Gone(self.pid))?
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        // The main thread first: pending calls run on no other.
        threads.sort_by_key(|&tid| (tid != self.pid, tid));
        for tid in threads {
            // Of a process that has ended nothing can be read any more.
            let failed = |e| match self.field(offset_of!(Control, trampoline)) {
                0 => Error::Gone(self.pid),
                _ => Error::Enter(self.pid, e),
            };
            let Some(thread) = Held::new(tid).map_err(failed)? else { continue };
            if let Some(way) = self.way_in(&thread).map_err(failed)? {
                self.enter(&thread, &way, remedy).map_err(failed)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How a thread can be entered where it stands, if it can.
    fn way_in(&self, thread: &Held) -> io::Result<Option<Way>> {
        // A signal is on its way to it.
        if thread.signal != 0 {
            return Ok(None);
        }
        let mut r = thread.registers()?;
        let mut call = r.orig_rax as i64;
        let result = r.rax as i64;
        if call < 0 {
            let [start, end] = self.range(offset_of!(Control, eval_loop));
            let running = thread.tid == self.pid && (start..end).contains(&r.rip);
            return Ok(running.then_some(Way { entry: layout::ENTRY_RUNNING, on_signal: 0, r }));
        }
        if call == libc::SYS_restart_syscall && result == GO_ON {
            // It was interrupted before (by a census, say) and gone on with.
            call = self.call_before(r.rip).unwrap_or(call);
        }
        let lock = || call == libc::SYS_futex && self.waits_for_lock(&r);
        if !WAITING.contains(&call) && !lock() {
            return Ok(None);
        }
        let after = r.rip;
        // For ever: the time that is left is no question.
        let epoll = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait].contains(&call);
        let again = AGAIN.contains(&result) || (epoll && result == EINTR && r.r10 as i32 == -1);
        if again {
            r.rax = r.orig_rax;
        } else if result == GO_ON {
            r.rax = libc::SYS_restart_syscall as u64;
        } else if !(epoll && result == EINTR) {
            return Ok(None);
        }
        if again || result == GO_ON {
            r.rip -= SYSCALL.len() as u64;
        }
        // The kernel must not do the same once more.
        r.orig_rax = u64::MAX;
        Ok(Some(Way { entry: layout::ENTRY_BLOCKED, on_signal: after, r }))
    }

    /// Number of the system call that the instruction before `after` makes, as the code says that
    /// puts it into eax: after a restart the kernel doesn't know it any more.
    fn call_before(&self, after: u64) -> Option<i64> {
        let mut code = [0; CODE_BYTES];
        self.memory.read_exact_at(&mut code, after.checked_sub(CODE_BYTES as u64)?).ok()?;
        let before = code.strip_suffix(&SYSCALL)?;
        // `mov eax, imm32`; with 0x41 in front it is r8d.
        let at = (1..before.len().saturating_sub(4))
            .rev()
            .find(|&i| before.get(i) == Some(&0xb8) && before.get(i - 1) != Some(&0x41))?;
        let number = before.get(at + 1..at + 5)?.try_into().ok()?;
        Some(i64::from(i32::from_le_bytes(number)))
    }

    fn range(&self, offset: usize) -> [u64; 2] {
        [self.field(offset), self.field(offset + size_of::<u64>())]
    }

    /// True if the thread waits for one of Python's locks (`threading.Lock`, `Thread.join`), not
    /// for the GIL or for a lock of the C library's: the function that does so, which gives the GIL
    /// away before, is one of the last that were called.
    fn waits_for_lock(&self, r: &libc::user_regs_struct) -> bool {
        let first = offset_of!(Control, lock_waits);
        let waits = [self.range(first), self.range(first + size_of::<[u64; 2]>())];
        let flags = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME) as u32;
        if (r.rsi as u32 & !flags) != FUTEX_WAIT_BITSET {
            return false;
        }
        let mut bytes = [0; STACK_WORDS * 8];
        if self.memory.read_exact_at(&mut bytes, r.rsp).is_err() {
            return false;
        }
        let mut words = bytes.chunks_exact(8).map(|w| w.try_into().map_or(0, u64::from_le_bytes));
        words.any(|word| waits.iter().any(|&[start, end]| (start..end).contains(&word)))
    }

    /// Sends the thread to the trampoline and lets it go.
    fn enter(&self, thread: &Held, way: &Way, remedy: u32) -> io::Result<()> {
        let mut r = way.r;
        let next = r.rip;
        // Below the red zone: see the trampoline.
        r.rsp -= RED_ZONE + 8;
        r.rip = self.field(offset_of!(Control, trampoline));
        self.memory.write_all_at(&next.to_le_bytes(), r.rsp)?;
        let blocked = way.entry == layout::ENTRY_BLOCKED;
        let mask = thread.mask()?;
        self.set(offset_of!(Control, kind), &remedy.to_le_bytes())?;
        self.set(offset_of!(Control, entry), &way.entry.to_le_bytes())?;
        self.set(offset_of!(Control, on_signal), &way.on_signal.to_le_bytes())?;
        self.set(offset_of!(Control, mask), &mask.to_le_bytes())?;
        thread.set_registers(&r)?;
        self.set(offset_of!(Control, state), &layout::CONTROL_SENT.to_le_bytes())?;
        if blocked {
            // From here on signals wait until the agent has looked for them.
            thread.set_mask(u64::MAX)?;
        }
        Ok(())
    }
}

/// Bytes below the stack pointer that belong to the running function (System V ABI, x86-64).
const RED_ZONE: u64 = 128;

/// How a thread is entered: with these registers, but for the trampoline.
struct Way {
    entry: u32,
    on_signal: u64,
    r: libc::user_regs_struct,
}

/// A number of the process's memory; 0 if it can't be read.
fn number(memory: &File, address: u64) -> u64 {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, address).map_or(0, |()| u64::from_le_bytes(bytes))
}

/// A thread that stands until this is dropped.
struct Held {
    tid: i32,
    /// A signal that it was about to get, 0: none.
    signal: i32,
}

/// PTRACE_GETSIGMASK, PTRACE_SETSIGMASK (include/uapi/linux/ptrace.h).
const GETSIGMASK: libc::c_uint = 0x420a;
const SETSIGMASK: libc::c_uint = 0x420b;
/// PTRACE_EVENT_STOP as waitid reports it.
const EVENT_STOP: i32 = 128;

fn ptrace(request: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: callers pass what ptrace(2) wants for the request: numbers, or the address of a
    // structure of theirs.
    match unsafe { libc::ptrace(request, tid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Held {
    /// Stops a thread; nothing if it has ended.
    fn new(tid: i32) -> io::Result<Option<Held>> {
        let ended = |e: &io::Error| e.raw_os_error() == Some(libc::ESRCH);
        match ptrace(libc::PTRACE_SEIZE, tid, 0, 0) {
            Err(e) if ended(&e) => return Ok(None),
            done => done?,
        }
        let mut held = Held { tid, signal: 0 };
        match ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0) {
            Err(e) if ended(&e) => return Ok(None),
            done => done?,
        }
        loop {
            // SAFETY: an all-zero siginfo is a valid value, which waitid(2) fills in; `si_status`
            // is a field of what it reports.
            let waited = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let flags = libc::WSTOPPED | libc::__WALL;
                let status = libc::waitid(libc::P_PID, tid as libc::id_t, &mut info, flags);
                (status == 0).then(|| info.si_status())
            };
            match waited {
                Some(status) if status >> 8 == EVENT_STOP => return Ok(Some(held)),
                Some(status) => {
                    held.signal = status & 0xff;
                    return Ok(Some(held));
                }
                None if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                None => return Ok(None),
            }
        }
    }

    fn registers(&self) -> io::Result<libc::user_regs_struct> {
        // SAFETY: any bits are valid for the structure, which PTRACE_GETREGS fills in.
        let mut r: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        ptrace(libc::PTRACE_GETREGS, self.tid, 0, &mut r as *mut _ as usize)?;
        Ok(r)
    }

    fn set_registers(&self, r: &libc::user_regs_struct) -> io::Result<()> {
        ptrace(libc::PTRACE_SETREGS, self.tid, 0, r as *const _ as usize)
    }

    fn mask(&self) -> io::Result<u64> {
        let mut mask = 0u64;
        ptrace(GETSIGMASK, self.tid, size_of::<u64>(), &mut mask as *mut _ as usize)?;
        Ok(mask)
    }

    fn set_mask(&self, mask: u64) -> io::Result<()> {
        ptrace(SETSIGMASK, self.tid, size_of::<u64>(), &mask as *const _ as usize)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A thread that was killed meanwhile needs nothing.
        let _ = ptrace(libc::PTRACE_DETACH, self.tid, 0, self.signal as usize);
    }
}
