//! What is in use now, and the most since a moment: for who measures a piece of a program (a test, a
//! cell of a notebook) from inside.

use core::sync::atomic::{AtomicI64, Ordering::Relaxed};

use crate::region::region;
use crate::symbols::Object;
use crate::{counters, front, heap, lines, rss};

/// Highest bytes in use since the moment that [`native_usage`] was last told, before the watermark
/// was last folded.
static HIGHEST: AtomicI64 = AtomicI64::new(0);

/// The watermark begins anew; it was `highest`.
#[inline(always)]
pub fn folded(highest: i64) {
    if highest > HIGHEST.load(Relaxed) {
        HIGHEST.store(highest, Relaxed);
    }
}

/// (0): bytes in use; (1): the most since (2), which begins to measure; (3): stranded bytes;
/// (4): resident bytes of strandline's own.
pub unsafe extern "C" fn native_usage(_: Object, args: Object) -> Object {
    // SAFETY: only the module's users call this, with one int.
    let which = unsafe { front::int_item(args, 0) };
    if crate::attach::is() {
        crate::attach::look_again();
    }
    let value = match which {
        0 => counters::in_use(),
        1 => HIGHEST.load(Relaxed).max(region().head.watermark.load(Relaxed)),
        2 => {
            lines::fold();
            HIGHEST.store(counters::in_use(), Relaxed);
            0
        }
        3 => rss::stranded_arenas() + heap::stranded(),
        _ => rss::profiler_bytes(),
    };
    // SAFETY: the GIL is held.
    unsafe { front::new_long(value) }
}
