//! One region's tables, as stored: every index checked, every text resolved.

use core::mem::{offset_of, size_of};
use std::io;
use std::sync::Arc;

use super::stacks::{self, Stacks};
use super::{Bytes, Doubts};
use crate::layout::{self, Region, RegionHead};

/// Bytes of the file; what lies behind the end of the file is zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Piece(Vec<u8>);

impl Piece {
    /// Reads `length` bytes at `offset`.
    pub(super) fn read<B: Bytes + ?Sized>(
        bytes: &B,
        offset: u64,
        length: usize,
    ) -> io::Result<Piece> {
        let mut buffer = vec![0u8; length];
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|r| !r.is_empty()) {
            match bytes.read_at(offset.saturating_add(done as u64), rest) {
                Ok(0) => break,
                // A source that claims more than it was asked for is not believed.
                Ok(n) => done = done.saturating_add(n.min(rest.len())),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Piece(buffer))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let found = at.checked_add(N).and_then(|end| self.0.get(at..end));
        found.and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    /// The number at `at`; 0 outside the piece.
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    /// The number at `at`; 0 outside the piece.
    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// The number at `at`; 0 outside the piece.
    pub(super) fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.array(at))
    }

    /// `len` bytes at `at`; empty if they are not all within the piece.
    pub(super) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        at.checked_add(len).and_then(|end| self.0.get(at..end)).unwrap_or(&[])
    }
}

/// [`layout::RegionHead`] as plain values; see there for units.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Head {
    pub state: u32,
    pub pid: u32,
    pub parent_pid: u32,
    pub python: u32,
    pub abilities: u32,
    pub refusal: u32,
    pub forked: u32,
    pub parent_region: u32,
    pub overflowed: u32,
    pub command: Vec<u8>,
    pub executable: Arc<str>,
    pub version_text: Arc<str>,
    pub in_use: i64,
    pub watermark: i64,
    pub peak: i64,
    pub in_use_native: i64,
    pub block_bytes: i64,
    pub arena_resident: i64,
    pub arena_mapped: i64,
    pub arenas: i64,
    pub maps: i64,
    pub unseen_frees: u64,
    pub start: RawLedger,
    pub latest: RawLedger,
    pub exit: RawLedger,
    pub rss_peak: i64,
    pub started: u64,
}

/// [`layout::Ledger`] as plain values, bytes; `when` 0 means never taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RawLedger {
    pub rss: i64,
    pub profiler: i64,
    pub in_use: i64,
    pub stranded_arenas: i64,
    pub stranded_heap: i64,
    pub when: u64,
}

/// [`layout::Code`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// `co_filename`.
    pub file: Arc<str>,
    /// Qualified name where there is one.
    pub name: Arc<str>,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// A library of machine code: `file` is its path, `name` its build id in hexadecimal.
    pub native: bool,
}

/// [`layout::Site`]; `code` is 0 or within [`Tables::codes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Site {
    pub code: u32,
    pub line: u32,
}

/// [`layout::Tag`] with what was inherited at a fork; indices are within their tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tag {
    pub site: u32,
    pub context: u32,
    pub allocated: u64,
    pub freed: u64,
    pub freed_native: u64,
    /// May be negative: blocks whose allocation was never seen were freed before the fork.
    pub inherited: i64,
}

/// [`layout::Context`]; `parent` is smaller than the entry's own index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Context {
    pub parent: u32,
    pub slot: u32,
    pub freed: u64,
    pub freed_native: u64,
}

/// [`layout::Slot`]; `function` is 0 or within [`Tables::functions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Slot {
    pub function: u32,
    pub line: u32,
    pub occurrences: u64,
    pub readings: u64,
    pub rss: i64,
    pub rss_increment: i64,
    pub in_use_at_rss: i64,
    pub stranded_at_rss: i64,
    pub stranded_increment: i64,
    pub peak: u64,
}

/// [`layout::Function`]; `code` is 0 or within [`Tables::codes`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FunctionEntry {
    pub code: u32,
    pub last_line: u32,
    pub calls: u64,
    pub name: Arc<str>,
    pub source: Arc<str>,
    pub path: Arc<str>,
    pub source_first_line: u32,
}

/// One region, as stored. Entry 0 of every table is the reserved one.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Tables {
    pub head: Head,
    pub codes: Vec<Code>,
    pub sites: Vec<Site>,
    pub functions: Vec<FunctionEntry>,
    pub slots: Vec<Slot>,
    pub contexts: Vec<Context>,
    pub tags: Vec<Tag>,
    /// Call paths, if they were recorded.
    pub stacks: Option<Stacks>,
}

/// What locates the tables of one region.
pub(super) struct Source<'a, B: ?Sized> {
    pub(super) bytes: &'a B,
    pub(super) length: u64,
    pub(super) base: u64,
}

impl<B: Bytes + ?Sized> Source<'_, B> {
    /// The used entries of a table, and how many there are.
    pub(super) fn table(
        &self,
        offset: usize,
        entry: usize,
        count: u32,
        max: usize,
        what: &str,
        doubts: &mut Doubts,
    ) -> io::Result<(Piece, usize)> {
        let mut count = count as usize;
        if count > max {
            doubts.note(&format!("the table of {what} says it has more entries than it can hold"));
            count = max;
        }
        let at = self.base.saturating_add(offset as u64);
        let there = (self.length.saturating_sub(at) / entry.max(1) as u64) as usize;
        if count > there {
            doubts.note(&format!("the capture ends within the table of {what}"));
            count = there;
        }
        Ok((Piece::read(self.bytes, at, count * entry)?, count))
    }
}

/// Text of a region.
pub(super) struct Strings<'a> {
    piece: Piece,
    pub(super) doubts: &'a mut Doubts,
}

impl Strings<'_> {
    fn raw(&mut self, from: &Piece, at: usize) -> &[u8] {
        let offset = from.u32(at + offset_of!(layout::Text, offset)) as usize;
        let len = from.u32(at + offset_of!(layout::Text, len)) as usize;
        let found = self.piece.bytes(offset, len);
        if found.len() != len {
            self.doubts.note("a text lies outside the table of strings");
        }
        found
    }

    pub(super) fn text(&mut self, from: &Piece, at: usize) -> Arc<str> {
        String::from_utf8_lossy(self.raw(from, at)).into()
    }
}

/// `index` if it is below `count`, else 0 and a doubt.
fn within(index: u32, count: usize, what: &str, doubts: &mut Doubts) -> u32 {
    if (index as usize) < count.max(1) {
        return index;
    }
    doubts.note(&format!("an index of a {what} is outside its table"));
    0
}

fn ledger(head: &Piece, at: usize) -> RawLedger {
    use layout::Ledger as L;
    RawLedger {
        rss: head.i64(at + offset_of!(L, rss)),
        profiler: head.i64(at + offset_of!(L, profiler)),
        in_use: head.i64(at + offset_of!(L, in_use)),
        stranded_arenas: head.i64(at + offset_of!(L, stranded_arenas)),
        stranded_heap: head.i64(at + offset_of!(L, stranded_heap)),
        when: head.u64(at + offset_of!(L, when)),
    }
}

impl Tables {
    /// Reads region `index` of a capture of `length` bytes with these `OPTION_*` bits. `stacks`:
    /// call paths, too, if there are any. Fails only if reading does.
    pub fn read<B: Bytes + ?Sized>(
        bytes: &B,
        length: u64,
        options: u32,
        stacks: bool,
        index: u32,
        doubts: &mut Doubts,
    ) -> io::Result<Tables> {
        use RegionHead as H;
        let base = layout::HEADER_BYTES as u64 + index as u64 * layout::stride(options) as u64;
        let source = Source { bytes, length, base };
        let h = Piece::read(bytes, base + offset_of!(Region, head) as u64, size_of::<H>())?;
        if h.u32(offset_of!(H, state)) == layout::STATE_FREE {
            return Ok(Tables::default());
        }
        let (strings, _) = source.table(
            offset_of!(Region, strings),
            1,
            h.u32(offset_of!(H, strings)),
            layout::MAX_STRINGS,
            "strings",
            doubts,
        )?;
        let (functions, functions_n) = source.table(
            offset_of!(Region, functions),
            size_of::<layout::Function>(),
            h.u32(offset_of!(H, functions)),
            layout::MAX_FUNCTIONS,
            "functions",
            doubts,
        )?;
        let (slots, slots_n) = source.table(
            offset_of!(Region, slots),
            size_of::<layout::Slot>(),
            h.u32(offset_of!(H, slots)),
            layout::MAX_SLOTS,
            "lines",
            doubts,
        )?;
        let (contexts, contexts_n) = source.table(
            offset_of!(Region, contexts),
            size_of::<layout::Context>(),
            h.u32(offset_of!(H, contexts)),
            layout::MAX_CONTEXTS,
            "line sets",
            doubts,
        )?;
        let (codes, codes_n) = source.table(
            offset_of!(Region, codes),
            size_of::<layout::Code>(),
            h.u32(offset_of!(H, codes)),
            layout::MAX_CODES,
            "code objects",
            doubts,
        )?;
        let (sites, sites_n) = source.table(
            offset_of!(Region, sites),
            size_of::<layout::Site>(),
            h.u32(offset_of!(H, sites)),
            layout::MAX_SITES,
            "sites",
            doubts,
        )?;
        let (tags, tags_n) = source.table(
            offset_of!(Region, tags),
            size_of::<layout::Tag>(),
            h.u32(offset_of!(H, tags)),
            layout::MAX_TAGS,
            "tags",
            doubts,
        )?;
        let (inherited, _) = source.table(
            offset_of!(Region, inherited),
            8,
            tags_n as u32,
            layout::MAX_TAGS,
            "inherited amounts",
            doubts,
        )?;
        let mut out = Tables {
            sites: (0..sites_n).map(|i| site(&sites, i, codes_n, doubts)).collect(),
            slots: (0..slots_n).map(|i| slot(&slots, i, functions_n, doubts)).collect(),
            contexts: (0..contexts_n).map(|i| context(&contexts, i, slots_n, doubts)).collect(),
            tags: (0..tags_n)
                .map(|i| tag(&tags, &inherited, i, (sites_n, contexts_n), doubts))
                .collect(),
            ..Tables::default()
        };
        let mut texts = Strings { piece: strings, doubts };
        out.codes = codes_of(&codes, codes_n, &mut texts);
        out.functions =
            (0..functions_n).map(|i| function(&functions, i, codes_n, &mut texts)).collect();
        out.head = head(&h, &mut texts);
        if stacks && options & layout::OPTION_STACKS != 0 {
            let source = Source { base: base + layout::REGION_STRIDE as u64, ..source };
            let tags = stacks::Tags { piece: tags, inherited, count: tags_n };
            out.stacks = Some(stacks::read(&source, tags, sites_n, &mut texts)?);
        }
        Ok(out)
    }
}

fn head(h: &Piece, texts: &mut Strings) -> Head {
    use RegionHead as H;
    Head {
        state: h.u32(offset_of!(H, state)),
        pid: h.u32(offset_of!(H, pid)),
        parent_pid: h.u32(offset_of!(H, parent_pid)),
        python: h.u32(offset_of!(H, python)),
        abilities: h.u32(offset_of!(H, abilities)),
        refusal: h.u32(offset_of!(H, refusal)),
        forked: h.u32(offset_of!(H, forked)),
        parent_region: h.u32(offset_of!(H, parent_region)),
        overflowed: h.u32(offset_of!(H, overflowed)),
        command: texts.raw(h, offset_of!(H, command)).to_vec(),
        executable: texts.text(h, offset_of!(H, executable)),
        version_text: texts.text(h, offset_of!(H, version_text)),
        in_use: h.i64(offset_of!(H, in_use)),
        watermark: h.i64(offset_of!(H, watermark)),
        peak: h.i64(offset_of!(H, peak)),
        in_use_native: h.i64(offset_of!(H, in_use_native)),
        block_bytes: h.i64(offset_of!(H, block_bytes)),
        arena_resident: h.i64(offset_of!(H, arena_resident)),
        arena_mapped: h.i64(offset_of!(H, arena_mapped)),
        arenas: h.i64(offset_of!(H, arenas)),
        maps: h.i64(offset_of!(H, maps)),
        unseen_frees: h.u64(offset_of!(H, unseen_frees)),
        start: ledger(h, offset_of!(H, start)),
        latest: ledger(h, offset_of!(H, latest)),
        exit: ledger(h, offset_of!(H, exit)),
        rss_peak: h.i64(offset_of!(H, rss_peak)),
        started: h.u64(offset_of!(H, started)),
    }
}

fn codes_of(codes: &Piece, count: usize, texts: &mut Strings) -> Vec<Code> {
    use layout::Code as C;
    let mut out: Vec<Code> = Vec::with_capacity(count);
    for i in 0..count {
        let at = i * size_of::<C>();
        let mut file = texts.text(codes, at + offset_of!(C, file));
        // Code objects of one file come in runs: share its name.
        if let Some(last) = out.last().filter(|last| last.file == file) {
            file = last.file.clone();
        }
        out.push(Code {
            file,
            name: texts.text(codes, at + offset_of!(C, name)),
            first_line: codes.u32(at + offset_of!(C, first_line)),
            native: codes.u32(at + offset_of!(C, native)) != 0,
        });
    }
    out
}

fn function(functions: &Piece, i: usize, codes: usize, texts: &mut Strings) -> FunctionEntry {
    use layout::Function as F;
    let at = i * size_of::<F>();
    let code = functions.u32(at + offset_of!(F, code));
    FunctionEntry {
        code: within(code, codes, "code object", texts.doubts),
        last_line: functions.u32(at + offset_of!(F, last_line)),
        calls: functions.u64(at + offset_of!(F, calls)),
        name: texts.text(functions, at + offset_of!(F, name)),
        source: texts.text(functions, at + offset_of!(F, source)),
        path: texts.text(functions, at + offset_of!(F, path)),
        source_first_line: functions.u32(at + offset_of!(F, source_first_line)),
    }
}

fn site(sites: &Piece, i: usize, codes: usize, doubts: &mut Doubts) -> Site {
    use layout::Site as S;
    let at = i * size_of::<S>();
    Site {
        code: within(sites.u32(at + offset_of!(S, code)), codes, "code object", doubts),
        line: sites.u32(at + offset_of!(S, line)),
    }
}

fn slot(slots: &Piece, i: usize, functions: usize, doubts: &mut Doubts) -> Slot {
    use layout::Slot as S;
    let at = i * size_of::<S>();
    Slot {
        function: within(slots.u32(at + offset_of!(S, function)), functions, "function", doubts),
        line: slots.u32(at + offset_of!(S, line)),
        occurrences: slots.u64(at + offset_of!(S, occurrences)),
        readings: slots.u64(at + offset_of!(S, readings)),
        rss: slots.i64(at + offset_of!(S, rss)),
        rss_increment: slots.i64(at + offset_of!(S, rss_increment)),
        in_use_at_rss: slots.i64(at + offset_of!(S, in_use_at_rss)),
        stranded_at_rss: slots.i64(at + offset_of!(S, stranded_at_rss)),
        stranded_increment: slots.i64(at + offset_of!(S, stranded_increment)),
        peak: slots.u64(at + offset_of!(S, peak)),
    }
}

fn context(contexts: &Piece, i: usize, slots: usize, doubts: &mut Doubts) -> Context {
    use layout::Context as C;
    let at = i * size_of::<C>();
    let mut parent = contexts.u32(at + offset_of!(C, parent));
    // The agent makes a set after its parent, so this also rules out cycles.
    if parent != 0 && parent as usize >= i {
        doubts.note("a line set's parent does not come before it");
        parent = 0;
    }
    Context {
        parent,
        slot: within(contexts.u32(at + offset_of!(C, slot)), slots, "line", doubts),
        freed: contexts.u64(at + offset_of!(C, freed)),
        freed_native: contexts.u64(at + offset_of!(C, freed_native)),
    }
}

fn tag(
    tags: &Piece,
    inherited: &Piece,
    i: usize,
    (sites, contexts): (usize, usize),
    doubts: &mut Doubts,
) -> Tag {
    use layout::Tag as T;
    let at = i * size_of::<T>();
    Tag {
        site: within(tags.u32(at + offset_of!(T, site)), sites, "site", doubts),
        context: within(tags.u32(at + offset_of!(T, context)), contexts, "line set", doubts),
        allocated: tags.u64(at + offset_of!(T, allocated)),
        freed: tags.u64(at + offset_of!(T, freed)),
        freed_native: tags.u64(at + offset_of!(T, freed_native)),
        inherited: inherited.i64(i * 8),
    }
}
