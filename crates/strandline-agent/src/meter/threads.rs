//! Which tables are fed in which thread. Under the GIL.

use core::ptr::null_mut;

use super::block::{self, Block};
use super::table::Table;
use crate::tls::tls;

/// Chains of a thread's code objects.
const CHAINS: usize = 64;

/// A code object and its table, in a meter.
pub struct Bound {
    /// Address of the code object, which the package keeps alive.
    pub code: usize,
    /// Its `co_firstlineno`.
    pub first: u32,
    /// In the same meter.
    pub table: *mut Table,
    next: *mut Bound,
}

impl Bound {
    /// In no thread yet.
    pub fn new(code: usize, first: u32, table: *mut Table) -> Bound {
        Bound { code, first, table, next: null_mut() }
    }
}

/// What a thread feeds.
pub struct Thread {
    /// The code object of the last event if it has one table, else 0.
    hot: usize,
    hot_table: *mut Table,
    chains: [*mut Bound; CHAINS],
    /// Meters that are on.
    meters: usize,
    next: *mut Thread,
    block: Block,
}

/// All threads that feed anything; each has the next one.
struct All(core::cell::Cell<*mut Thread>);
// SAFETY: used under the GIL only.
unsafe impl Sync for All {}
static ALL: All = All(core::cell::Cell::new(null_mut()));

/// True if some thread feeds the tables of this code object.
pub fn is_bound(code: usize) -> bool {
    let mut next = ALL.0.get();
    // SAFETY: what is in the list was made by `turn_on` and not given back.
    while let Some(thread) = unsafe { next.as_ref() } {
        if thread.binds(code) {
            return true;
        }
        next = thread.next;
    }
    false
}

fn chain_of(code: usize) -> usize {
    // Code objects are aligned to 16 bytes and larger than 64.
    (code >> 6) % CHAINS
}

impl Thread {
    /// The calling thread's, if it feeds anything.
    #[inline(always)]
    pub fn current() -> Option<&'static mut Thread> {
        // SAFETY: null, or what `turn_on` made for this thread and `turn_off` didn't give back.
        unsafe { (tls().meter.get() as *mut Thread).as_mut() }
    }

    /// The table of a code object, if it has exactly one and was asked for last.
    #[inline(always)]
    pub fn hot_table(&mut self, code: usize) -> Option<&'static mut Table> {
        // SAFETY: tables live as long as their meter, which forgets this when it is turned off.
        (self.hot == code && code != 0).then(|| unsafe { &mut *self.hot_table })
    }

    /// Calls `with` for each table of a code object, and with its first line.
    pub fn each(&mut self, code: usize, mut with: impl FnMut(&mut Table, u32)) {
        let Some(first) = self.chains.get(chain_of(code)) else { return };
        let (mut bound, mut found, mut table) = (*first, 0, null_mut());
        // SAFETY: what is in a chain is in a meter that is on.
        while let Some(b) = unsafe { bound.as_mut() } {
            if b.code == code {
                found += 1;
                table = b.table;
                // SAFETY: as above; no other reference to the table is in use.
                with(unsafe { &mut *b.table }, b.first);
            }
            bound = b.next;
        }
        if found == 1 {
            (self.hot, self.hot_table) = (code, table);
        }
    }

    fn binds(&self, code: usize) -> bool {
        let mut bound = self.chains.get(chain_of(code)).copied().unwrap_or(null_mut());
        // SAFETY: what is in a chain is in a meter that is on.
        while let Some(b) = unsafe { bound.as_ref() } {
            if b.code == code {
                return true;
            }
            bound = b.next;
        }
        false
    }

    /// Feeds these as well, in the calling thread: which one, or null for lack of memory.
    pub fn turn_on(all: &mut [Bound]) -> *mut Thread {
        let thread = match Thread::current() {
            Some(thread) => thread,
            None => {
                let Some(block) = block::take(core::mem::size_of::<Thread>()) else {
                    return null_mut();
                };
                let chains = [null_mut(); CHAINS];
                let (hot_table, next) = (null_mut(), ALL.0.get());
                let new = Thread { hot: 0, hot_table, chains, meters: 0, next, block };
                let at = block.start as *mut Thread;
                // SAFETY: a fresh block that is large enough, and aligned to a page.
                let thread = unsafe {
                    at.write(new);
                    &mut *at
                };
                tls().meter.set(at as usize);
                ALL.0.set(at);
                thread
            }
        };
        thread.hot = 0;
        for b in all {
            if let Some(chain) = thread.chains.get_mut(chain_of(b.code)) {
                b.next = *chain;
                *chain = b;
            }
        }
        thread.meters += 1;
        thread
    }

    /// Feeds these no longer. True if the calling thread feeds nothing now.
    ///
    /// # Safety
    /// `thread` is what `turn_on` returned for these.
    pub unsafe fn turn_off(thread: *mut Thread, all: &mut [Bound]) -> bool {
        // SAFETY: the caller's promise.
        let t = unsafe { &mut *thread };
        t.hot = 0;
        for b in all {
            let Some(chain) = t.chains.get_mut(chain_of(b.code)) else { continue };
            let mut link: *mut *mut Bound = chain;
            // SAFETY: what is in a chain is in a meter that is on.
            unsafe {
                while !(*link).is_null() && !core::ptr::eq(*link, b) {
                    link = &mut (**link).next;
                }
                if !(*link).is_null() {
                    *link = b.next;
                }
            }
            b.next = null_mut();
        }
        t.meters -= 1;
        // A profiler that is dropped elsewhere: the thread, which may have ended, keeps its block.
        if t.meters > 0 || tls().meter.get() != thread as usize {
            return false;
        }
        tls().meter.set(0);
        let mut link = ALL.0.as_ptr();
        // SAFETY: the list's own links; the block was this thread's, which has forgotten it.
        unsafe {
            while !(*link).is_null() && *link != thread {
                link = &mut (**link).next;
            }
            if !(*link).is_null() {
                *link = t.next;
            }
            block::give(t.block);
        }
        true
    }
}
