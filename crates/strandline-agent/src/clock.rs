//! Time, without a call into anything that could allocate.

/// Wall-clock time, nanoseconds since the epoch.
pub fn wall() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Processor cycles (rdtsc): only for "is it long ago", never for a figure.
#[inline(always)]
pub fn cycles() -> u64 {
    // SAFETY: rdtsc exists on every x86-64 processor.
    unsafe { core::arch::x86_64::_rdtsc() }
}
