//! Resident memory by source line, as the drop-in for memory_profiler tells it: nothing but line
//! events and `/proc/self/statm`. No allocator is hooked, and nothing is counted.
//!
//! The package `strandline` loads the library into a process that already runs and calls
//! [`prepare`]; `python/memory_profiler` says with the functions of the module which code objects
//! belong to which [`Table`], and when. A *meter* is the tables of one profiler in one thread.
//! Everything runs under the GIL.

mod block;
mod events;
mod gauge;
mod table;
mod threads;

use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;

use libc::c_int;

use crate::front::{self, int_item, item};
use crate::lines::monitoring::{method_object, VARARGS};
use crate::symbols::{self, call, Object};
use crate::{python, region};
use block::Block;
use table::{Entry, Level, Table};
use threads::{Bound, Thread};

/// [`prepare`]: done.
const DONE: c_int = 0;
/// [`prepare`]: not a CPython whose structures are known, or one without a GIL.
const UNKNOWN_PYTHON: c_int = 2;
/// [`prepare`]: no memory.
const NO_MEMORY: c_int = 4;

/// Levels that a table has room for at first.
const LEVELS: usize = 16;
/// Numbers that are told of a line: table, line, and those of [`Entry`].
const TOLD: usize = 6;

/// Tables of one profiler in one thread, and their code objects. At the start of its block.
struct Meter {
    tables: &'static mut [Table],
    bound: &'static mut [Bound],
    /// Where it is on; null: nowhere.
    thread: *mut Thread,
    lines: usize,
    block: Block,
}

/// Fills `module` with the functions below. 0, or why not. An exception may be set.
///
/// # Safety
/// The GIL is held; `module` is a live module.
pub unsafe fn prepare(module: Object) -> c_int {
    let known = python::detect() && region::region().head.refusal.load(Relaxed) == 0;
    let known = known && python::layout().is_some_and(|l| l.version.0 == 3);
    if !known || !symbols::BYTES_NEW.found() || !events::prepare() {
        return UNKNOWN_PYTHON;
    }
    let functions: [(&CStr, front::Native); 10] = [
        (c"begin", native_begin),
        (c"lines", native_lines),
        (c"new", native_new),
        (c"start", native_start),
        (c"stop", native_stop),
        (c"pause", native_pause),
        (c"told", native_told),
        (c"drop", native_drop),
        (c"bound", native_bound),
        (c"callback", events::native_callback),
    ];
    // SAFETY: the caller's promise.
    unsafe {
        let names = call!(symbols::MODULE_DICT, fn(module => Object) -> Object);
        for (name, f) in functions {
            let object = method_object(name, f as usize, VARARGS);
            if front::set(names, name, object).is_none() {
                return NO_MEMORY;
            }
        }
        let trace = events::trace_object();
        if !trace.is_null() && front::set(names, c"trace", trace).is_none() {
            return NO_MEMORY;
        }
    }
    DONE
}

/// (descriptor of statm, 1 if every line is to be measured)
unsafe extern "C" fn native_begin(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with two ints.
    let (fd, every) = unsafe { (int_item(args, 0), int_item(args, 1)) };
    gauge::start(fd as c_int, every != 0);
    front::none()
}

/// (code) -> first line << 32 | last line, with the code inside it
unsafe extern "C" fn native_lines(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with a code object; the GIL is held.
    unsafe {
        let (first, last) = python::lines_of(item(args, 0));
        front::new_long((first as i64) << 32 | last as i64)
    }
}

/// Bytes from the start of a `T`, where `at` more are in use, to its end.
fn after<T>(at: usize, count: usize) -> Option<(usize, usize)> {
    let start = at.checked_next_multiple_of(core::mem::align_of::<T>())?;
    Some((start, start.checked_add(count.checked_mul(core::mem::size_of::<T>())?)?))
}

/// (number of tables, number of code objects; of each table its first and last line and 1 if it has
/// its starting point; of each code object it and its table) -> the meter, 0 for lack of memory
unsafe extern "C" fn native_new(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with what is said above.
    unsafe { front::new_long(new(args).map_or(0, |m| m as i64)) }
}

unsafe fn new(args: Object) -> Option<*mut Meter> {
    // SAFETY: the caller's promise, here and below.
    let int = |i: usize| unsafe { int_item(args, i) };
    let (tables, codes) = (int(0) as usize, int(1) as usize);
    let count = |i: usize| usize::try_from(int(3 + 3 * i) - int(2 + 3 * i) + 2).ok();
    let mut lines = 0usize;
    for i in 0..tables {
        lines = lines.checked_add(count(i)?)?;
    }
    let (at_tables, end) = after::<Table>(core::mem::size_of::<Meter>(), tables)?;
    let (at_bound, end) = after::<Bound>(end, codes)?;
    let (at_levels, end) = after::<Level>(end, tables.checked_mul(LEVELS)?)?;
    let (at_entries, end) = after::<Entry>(end, lines)?;
    let block = block::take(end)?;
    let start = block.start;
    // SAFETY: parts of the fresh block that don't overlap, each aligned and as long as counted
    // above; all zero, which is a value of `Entry` and `Level`.
    unsafe {
        let (table, bound) =
            (start.add(at_tables) as *mut Table, start.add(at_bound) as *mut Bound);
        let mut entry = start.add(at_entries) as *mut Entry;
        for i in 0..tables {
            let level = (start.add(at_levels) as *mut Level).add(i * LEVELS);
            let entries = core::slice::from_raw_parts_mut(entry, count(i)?);
            entry = entry.add(entries.len());
            let levels = core::slice::from_raw_parts_mut(level, LEVELS);
            let (first, begun) = (int(2 + 3 * i) as u32, int(4 + 3 * i) != 0);
            table.add(i).write(Table::new(first, entries, levels, begun, more_levels));
        }
        for i in 0..codes {
            let code = item(args, 2 + 3 * tables + 2 * i);
            let its = table.add((int(3 + 3 * tables + 2 * i) as usize).min(tables - 1));
            bound.add(i).write(Bound::new(code, python::lines_of(code).0, its));
        }
        let meter = start as *mut Meter;
        let tables = core::slice::from_raw_parts_mut(table, tables);
        let bound = core::slice::from_raw_parts_mut(bound, codes);
        meter.write(Meter { tables, bound, thread: core::ptr::null_mut(), lines, block });
        Some(meter)
    }
}

/// Twice the room for levels. What a meter has at first stays in its block.
fn more_levels(levels: &'static mut [Level]) -> &'static mut [Level] {
    let n = levels.len();
    let size = core::mem::size_of::<Level>();
    let Some(block) = block::take(2 * n * size) else { return levels };
    // SAFETY: a fresh block of all zeros, large enough and aligned.
    let more =
        unsafe { core::slice::from_raw_parts_mut(block.start as *mut Level, block.bytes / size) };
    for (to, from) in more.iter_mut().zip(levels.iter()) {
        *to = *from;
    }
    // SAFETY: levels in a block of their own fill it.
    unsafe { give_levels(levels) };
    more
}

/// # Safety
/// Nobody uses these levels any more.
unsafe fn give_levels(levels: &'static mut [Level]) {
    if levels.len() > LEVELS {
        let bytes = core::mem::size_of_val(levels);
        // SAFETY: more levels than a meter has at first are a block of their own.
        unsafe { block::give(Block { start: levels.as_mut_ptr() as *mut u8, bytes }) };
    }
}

/// # Safety
/// The first argument is a meter.
unsafe fn meter(args: Object) -> &'static mut Meter {
    // SAFETY: the caller's promise.
    unsafe { &mut *(int_item(args, 0) as usize as *mut Meter) }
}

/// (meter, 1 if its tables have no starting points) -> 1 if it is on in this thread
unsafe extern "C" fn native_start(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with a meter and an int; the GIL is held.
    unsafe {
        let m = meter(args);
        if int_item(args, 1) != 0 {
            m.tables.iter_mut().for_each(|t| t.begun = false);
        }
        if m.thread.is_null() {
            m.thread = Thread::turn_on(m.bound);
        }
        let done = !m.thread.is_null() && events::turn_on();
        front::new_long(done as i64)
    }
}

/// (meter) -> None, or bytes: [`TOLD`] numbers of 8 bytes for each line that ran
unsafe extern "C" fn native_stop(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with a meter; the GIL is held.
    unsafe {
        let m = meter(args);
        turn_off(m);
        let told = tell(m);
        m.tables.iter_mut().for_each(Table::clear);
        told
    }
}

/// (meter) -> how many lines ran since it was new or stopped: it is off, and keeps what it measured
unsafe extern "C" fn native_pause(_: Object, args: Object) -> Object {
    // SAFETY: as above.
    unsafe {
        let m = meter(args);
        turn_off(m);
        front::new_long(m.tables.iter_mut().map(Table::pause).sum::<usize>() as i64)
    }
}

/// (meter) -> what `stop` would return; nothing changes
unsafe extern "C" fn native_told(_: Object, args: Object) -> Object {
    // SAFETY: as above.
    unsafe { tell(meter(args)) }
}

/// # Safety
/// The GIL is held.
unsafe fn turn_off(m: &mut Meter) {
    let thread = core::mem::replace(&mut m.thread, core::ptr::null_mut());
    // SAFETY: what `turn_on` returned for these.
    if !thread.is_null() && unsafe { Thread::turn_off(thread, m.bound) } {
        // SAFETY: the caller's promise.
        unsafe { events::turn_off() };
    }
}

/// # Safety
/// The GIL is held.
unsafe fn tell(m: &Meter) -> Object {
    let Some(block) = block::take(m.lines * TOLD * 8) else { return front::none() };
    // SAFETY: a block of all zeros that is large enough.
    let room = unsafe { core::slice::from_raw_parts_mut(block.start as *mut i64, m.lines * TOLD) };
    let mut rows = 0;
    for (i, table) in m.tables.iter().enumerate() {
        table.each(|line, e| {
            if let Some(row) = room.get_mut(rows * TOLD..(rows + 1) * TOLD) {
                let told = [i as i64, line as i64, e.change, e.highest, e.occurrences, e.first];
                row.copy_from_slice(&told);
                rows += 1;
            }
        });
    }
    // SAFETY: the block is this function's; it is copied.
    unsafe {
        let told = if rows == 0 {
            front::none()
        } else {
            let bytes = (rows * TOLD * 8) as isize;
            call!(
                symbols::BYTES_NEW,
                fn(block.start => *const u8, bytes => isize) -> Object
            )
        };
        block::give(block);
        told
    }
}

/// (meter): it is gone
unsafe extern "C" fn native_drop(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with a meter that it doesn't use again.
    unsafe {
        let m = meter(args);
        turn_off(m);
        for table in m.tables.iter_mut() {
            give_levels(table.take_levels());
        }
        block::give(m.block);
    }
    front::none()
}

/// (code) -> 1 if some thread measures it now
unsafe extern "C" fn native_bound(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with a code object; the GIL is held.
    unsafe { front::new_long(threads::is_bound(item(args, 0)) as i64) }
}
