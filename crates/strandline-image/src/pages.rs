//! Which pages of a mapping are resident or swapped out.
//!
//! Facts: `PAGEMAP_SCAN` and struct pm_scan_arg (Linux 6.7, include/uapi/linux/fs.h,
//! Documentation/admin-guide/mm/pagemap.rst); entries of `/proc/PID/pagemap`: bit 63 present, bit
//! 62 swapped (proc_pid_pagemap(5)). The page of zeros, which a read of untouched memory maps, is
//! present and not counted in Rss.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::mapping::{Mapping, PageSet, PAGE};

/// `struct page_region`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZERO: u64 = 1 << 5;
/// Regions asked for at a time.
const REGIONS: usize = 1024;

/// Fills in which pages of `m` are resident and which are swapped out.
pub fn note(pagemap: &File, m: &mut Mapping) -> io::Result<()> {
    let pages = (m.len() / PAGE) as usize;
    let (mut resident, mut swapped) = (PageSet::none(pages), PageSet::none(pages));
    let first = m.start;
    let place = |address: u64| ((address - first) / PAGE) as usize;
    let scanned = scan(pagemap, m.start, m.end, |r| {
        let set = if r.categories & SWAPPED != 0 { &mut swapped } else { &mut resident };
        if r.categories & ZERO == 0 {
            set.insert(place(r.start), place(r.end));
        }
    });
    if scanned.is_err() {
        // Before Linux 6.7.
        read_entries(pagemap, m.start, pages, &mut resident, &mut swapped)?;
    }
    m.resident = resident;
    m.swapped = swapped;
    Ok(())
}

fn scan(pagemap: &File, start: u64, end: u64, mut each: impl FnMut(&Region)) -> io::Result<()> {
    let mut regions = [Region::default(); REGIONS];
    let mut from = start;
    while from < end {
        let mut arg = Scan {
            size: std::mem::size_of::<Scan>() as u64,
            start: from,
            end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS as u64,
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: PRESENT | SWAPPED | ZERO,
            ..Scan::default()
        };
        // SAFETY: ioctl(2) with a structure of the size that it names and a buffer of the length
        // that it names, both alive; without flags nothing is changed in the target.
        let count =
            unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &mut arg as *mut Scan) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        for r in regions.iter().take(count as usize) {
            // The kernel stays in the range; a torn answer must not.
            if r.start >= start && r.end <= end && r.start < r.end {
                each(r);
            }
        }
        if arg.walk_end <= from {
            break;
        }
        from = arg.walk_end;
    }
    Ok(())
}

fn read_entries(
    pagemap: &File,
    start: u64,
    pages: usize,
    resident: &mut PageSet,
    swapped: &mut PageSet,
) -> io::Result<()> {
    const AT_ONCE: usize = 8192;
    let mut entries = vec![0u8; 8 * AT_ONCE];
    let mut page = 0;
    while page < pages {
        let count = AT_ONCE.min(pages - page);
        let offset = (start / PAGE + page as u64) * 8;
        let read = pagemap.read_at(&mut entries[..8 * count], offset)?;
        for (i, entry) in entries[..read].chunks_exact(8).enumerate() {
            let bits = entry.last().copied().unwrap_or(0);
            if bits & 0x80 != 0 {
                resident.insert(page + i, page + i + 1);
            } else if bits & 0x40 != 0 {
                swapped.insert(page + i, page + i + 1);
            }
        }
        if read < 8 * count {
            break;
        }
        page += count;
    }
    Ok(())
}
