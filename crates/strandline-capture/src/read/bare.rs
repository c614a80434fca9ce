//! What a bare run noted: the resident memory of its program at a few points.

use core::mem::{offset_of, size_of};

use super::tables::Piece;
use super::{header, Bytes, ReadError};
use crate::layout::{self, Noted, Region, RegionHead};

/// The points of one program. Amounts are bytes; `None`: it never came to that point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bare {
    /// Process id.
    pub pid: u32,
    /// Python's version; `None`: not known.
    pub python: Option<(u8, u8, u8)>,
    /// Why the interpreter is not looked into: its end is noted late and nothing else.
    pub refused: bool,
    /// Calls of `strandline.mark()`.
    pub marks: u64,
    /// Returns of outermost functions under `@profile`.
    pub returns: u64,
    /// RSS at the last mark.
    pub marked: Option<i64>,
    /// RSS at the last return.
    pub returned: Option<i64>,
    /// RSS before a remedy acted the last time.
    pub before: Option<i64>,
    /// RSS after it.
    pub after: Option<i64>,
    /// RSS at the end.
    pub end: Option<i64>,
    /// Highest RSS.
    pub peak: i64,
    /// Highest RSS of the largest child process that was waited for.
    pub children_peak: i64,
    /// `BARE_*` bits of [`layout`].
    pub flags: u32,
}

/// Reads what the one program of a bare run noted; `None` if no Python was seen.
pub fn bare<B: Bytes + ?Sized>(bytes: &B) -> Result<Option<Bare>, ReadError> {
    header(bytes)?;
    let at = layout::HEADER_BYTES as u64 + offset_of!(Region, head) as u64;
    let head = Piece::read(bytes, at, size_of::<RegionHead>())?;
    if head.u32(offset_of!(RegionHead, state)) == layout::STATE_FREE {
        return Ok(None);
    }
    let field = |offset: usize| offset_of!(RegionHead, bare) + offset;
    let noted = |offset: usize| {
        let count = head.u64(field(offset) + offset_of!(Noted, count));
        let rss = head.i64(field(offset) + offset_of!(Noted, rss));
        (count, (count != 0).then_some(rss))
    };
    let version = head.u32(offset_of!(RegionHead, python));
    let (marks, marked) = noted(offset_of!(layout::Bare, marks));
    let (returns, returned) = noted(offset_of!(layout::Bare, returns));
    Ok(Some(Bare {
        pid: head.u32(offset_of!(RegionHead, pid)),
        python: (version != 0).then_some((
            (version >> 16) as u8,
            (version >> 8) as u8,
            version as u8,
        )),
        refused: head.u32(offset_of!(RegionHead, refusal)) != layout::REFUSED_NOT,
        marks,
        returns,
        marked,
        returned,
        before: noted(offset_of!(layout::Bare, before)).1,
        after: noted(offset_of!(layout::Bare, after)).1,
        end: noted(offset_of!(layout::Bare, end)).1,
        peak: head.i64(field(offset_of!(layout::Bare, peak))),
        children_peak: head.i64(field(offset_of!(layout::Bare, children_peak))),
        flags: head.u32(field(offset_of!(layout::Bare, flags))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_come_back_and_nothing_else_is_believed() {
        let length = layout::HEADER_BYTES + size_of::<RegionHead>();
        let mut bytes = vec![0u8; length];
        let mut put = |at: usize, value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
        };
        put(offset_of!(layout::Header, magic), &layout::MAGIC.to_le_bytes());
        put(offset_of!(layout::Header, version), &layout::VERSION.to_le_bytes());
        let head = layout::HEADER_BYTES + offset_of!(Region, head);
        let points = head + offset_of!(RegionHead, bare);
        put(head + offset_of!(RegionHead, python), &0x02_07_12u32.to_le_bytes());
        let end = points + offset_of!(layout::Bare, end);
        put(end + offset_of!(Noted, count), &1u64.to_le_bytes());
        put(end + offset_of!(Noted, rss), &4096u64.to_le_bytes());
        put(points + offset_of!(layout::Bare, returns), &3u64.to_le_bytes());
        assert_eq!(bare(&bytes[..]).unwrap(), None, "no process has started");
        let state = head + offset_of!(RegionHead, state);
        bytes[state] = layout::STATE_EXITED as u8;
        let found = bare(&bytes[..]).unwrap().unwrap();
        assert_eq!((found.end, found.returns, found.returned), (Some(4096), 3, Some(0)));
        assert_eq!((found.marked, found.python), (None, Some((2, 7, 18))));
        // Cut off, it is zero; another layout is refused.
        assert_eq!(bare(&bytes[..state + 4]).unwrap().unwrap().end, None);
        bytes[offset_of!(layout::Header, version)] += 1;
        assert!(matches!(bare(&bytes[..]), Err(ReadError::Version(_))));
        assert!(matches!(bare(&bytes[..8]), Err(ReadError::Version(0))));
    }
}
