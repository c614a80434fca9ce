//! The rings in which a process tells its events, as this process sees them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use strandline_capture::layout::{self, Events, NativeEvent, NATIVE_RING, RING};

use super::batch::Batch;

/// The events' part of one region, mapped.
pub struct Rings {
    at: NonNull<Events>,
    /// Words and slots that were taken.
    taken: u64,
    native_taken: u64,
    /// How often the oldest slot was found to be given to a thread but not written yet.
    stuck: u32,
}

// SAFETY: all fields of Events are atomics.
unsafe impl Send for Rings {}

/// So often a thread that was given a slot is waited for.
const PATIENCE: u32 = 50;

impl Rings {
    /// Maps those of region `index` of a capture with these options; `None` if the kernel refuses.
    pub fn map(capture: &File, options: u32, index: u32) -> Option<Rings> {
        let stride = layout::stride(options);
        let region = layout::HEADER_BYTES + index as usize * stride;
        let offset = region + stride - layout::EVENTS_ROOM;
        // SAFETY: a shared mapping of a file that is long enough for all regions that are handed
        // out and isn't cut by anybody, at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Events>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                capture.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        let at = NonNull::new(at.cast()).filter(|_| at != libc::MAP_FAILED)?;
        Some(Rings { at, taken: 0, native_taken: 0, stuck: 0 })
    }

    fn events(&self) -> &Events {
        // SAFETY: mapped until this value is dropped; the fields are atomics.
        unsafe { self.at.as_ref() }
    }

    /// `EVENTS_*`; 0: no process has come to write here yet.
    pub fn state(&self) -> u32 {
        self.events().head.state.load(Acquire)
    }

    /// Bytes that the process had allocated when its events began.
    pub fn clock(&self) -> u64 {
        self.events().head.clock.load(Relaxed)
    }

    /// Tells the process that its events are looked after.
    pub fn beat(&self) {
        self.events().head.beat.0.fetch_add(1, Relaxed);
    }

    /// Tells the process that no more events are wanted.
    pub fn enough(&self) {
        self.events().head.enough.store(1, Relaxed);
    }

    /// Hands all events that are there to `to`, in the order in which they happened, batch by batch.
    /// `batch` is empty before and after. Returns how much was taken.
    pub fn drain(&mut self, batch: &mut Batch, to: &mut impl FnMut(&Batch)) -> u64 {
        // What a thread without the GIL tells from now on happened after this.
        let until = self.events().head.written.0.load(Acquire);
        let given = self.events().head.native_given.0.load(Acquire);
        let before = self.taken + self.native_taken;
        if self.natives(given, until, batch, to) {
            self.words(until, batch, to);
        }
        batch.hand_on(to);
        let head = &self.events().head;
        head.taken.0.store(self.taken, Release);
        head.native_taken.0.store(self.native_taken, Release);
        self.taken + self.native_taken - before
    }

    /// Takes what threads without the GIL told, up to slot `given`, and the words before that. False
    /// if the next slot is to be waited for.
    fn natives(
        &mut self,
        given: u64,
        until: u64,
        batch: &mut Batch,
        to: &mut impl FnMut(&Batch),
    ) -> bool {
        while self.native_taken < given {
            let Some((after, word, birth)) = self.native(self.native_taken) else {
                // The thread is about to write it, or died doing so.
                self.stuck += 1;
                return self.stuck >= PATIENCE;
            };
            if after > until {
                break;
            }
            self.words(after, batch, to);
            if batch.is_full() {
                batch.hand_on(to);
            }
            batch.push(word, birth);
            self.native_taken += 1;
            self.stuck = 0;
        }
        true
    }

    /// The native event of this number, if it is there.
    fn native(&self, number: u64) -> Option<(u64, u64, u64)> {
        let slot: &NativeEvent = &self.events().native[number as usize & (NATIVE_RING - 1)];
        (slot.ready.load(Acquire) == number + 1)
            .then(|| (slot.after.load(Relaxed), slot.word.load(Relaxed), slot.birth.load(Relaxed)))
    }

    /// Takes words until so many were taken.
    fn words(&mut self, until: u64, batch: &mut Batch, to: &mut impl FnMut(&Batch)) {
        // A count from the program's memory is believed as far as the ring goes.
        let until = until.min(self.taken + RING as u64);
        while self.taken < until {
            if batch.is_full() {
                batch.hand_on(to);
            }
            self.taken = batch.fill(&self.events().ring, self.taken, until);
        }
    }

    /// Gives the memory of the rings back, of a process that has ended and whose events were taken.
    pub fn give_back(&self) {
        let events = self.events();
        let start = std::ptr::addr_of!(events.ring) as usize;
        let first = start.next_multiple_of(4096);
        let end = self.at.as_ptr() as usize + size_of::<Events>();
        // SAFETY: whole pages of this value's own mapping; nothing in them is needed any more.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_REMOVE) };
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping.
        unsafe { libc::munmap(self.at.as_ptr().cast(), size_of::<Events>()) };
    }
}
