//! The lock of the agent's slow paths: first sight of a site, a pool, a page.
//!
//! No hot path takes it. It spins, then yields; a thread that already is inside (a signal
//! handler that allocates) is refused instead of deadlocked.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::tls::{tls, IN_AGENT};

static LOCKED: AtomicU32 = AtomicU32::new(0);

/// Held while it lives.
pub struct Guard(());

/// Takes the lock; `None` if this very thread holds it already.
pub fn lock() -> Option<Guard> {
    let t = tls();
    if t.flags.get() & IN_AGENT != 0 {
        return None;
    }
    t.flags.set(t.flags.get() | IN_AGENT);
    let mut spins = 0u32;
    while LOCKED.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        spins += 1;
        if spins < 100 {
            core::hint::spin_loop();
        } else {
            // SAFETY: sched_yield(2) has no preconditions.
            unsafe { libc::sched_yield() };
        }
    }
    Some(Guard(()))
}

impl Drop for Guard {
    fn drop(&mut self) {
        LOCKED.store(0, Ordering::Release);
        let t = tls();
        t.flags.set(t.flags.get() & !IN_AGENT);
    }
}
