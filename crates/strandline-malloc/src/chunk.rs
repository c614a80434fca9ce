//! A chunk and its state.

/// What a chunk is to malloc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Handed out to the program (or glibc's own: a thread's tcache is such a chunk).
    InUse,
    /// Freed and kept in a thread's tcache. `mallinfo2` counts it as used.
    Tcache,
    /// Freed and in a fast bin (until 2.42).
    Fast,
    /// Free, in one of the bins of one size each (below 1,024 bytes).
    SmallBin,
    /// Free, in one of the bins of a range of sizes (1,024 bytes and more).
    LargeBin,
    /// Free and not yet sorted into a bin.
    Unsorted,
    /// The free end of an arena's newest heap.
    Top,
    /// Handed out, with a mapping of its own.
    Mmapped,
    /// A mark that malloc puts at the end of a heap that it can't extend.
    Fencepost,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [State; 9] = [
        State::InUse,
        State::Tcache,
        State::Fast,
        State::SmallBin,
        State::LargeBin,
        State::Unsorted,
        State::Top,
        State::Mmapped,
        State::Fencepost,
    ];

    /// The program may use the chunk.
    pub fn is_used(self) -> bool {
        matches!(self, State::InUse | State::Mmapped)
    }

    /// Freed, and neither in a thread's cache nor at a heap's free end.
    pub fn is_hole(self) -> bool {
        matches!(self, State::Fast | State::SmallBin | State::LargeBin | State::Unsorted)
    }

    /// The chunk holds nothing and malloc can hand it out.
    pub fn is_free(self) -> bool {
        !self.is_used() && self != State::Fencepost
    }

    /// The state of a free chunk of `size` bytes that isn't in the unsorted list
    /// (`in_smallbin_range`, malloc.c).
    pub(crate) fn of_bin(size: u64) -> State {
        if size < 1024 {
            State::SmallBin
        } else {
            State::LargeBin
        }
    }

    /// From the low bits of a packed word.
    pub(crate) fn unpack(word: u64) -> State {
        match word & 15 {
            MMAPPED_SHORT => State::Mmapped,
            number => State::ALL.get(number as usize).copied().unwrap_or(State::InUse),
        }
    }
}

/// In place of a state: [`State::Mmapped`], see [`Chunk::mmapped_short`].
const MMAPPED_SHORT: u64 = 15;

/// A chunk: 16 bytes in front (of which the first 8 belong to the chunk before while that is in
/// use), then what the program gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    start: u64,
    size_and_state: u64,
}

impl Chunk {
    /// `size`: a multiple of 16, bytes.
    pub(crate) fn new(start: u64, size: u64, state: State) -> Self {
        Chunk { start, size_and_state: size & !15 | state as u64 }
    }

    /// A chunk whose mapping goes on 16 bytes behind what its head says (2.43).
    pub(crate) fn mmapped_short(start: u64, size: u64) -> Self {
        Chunk { start, size_and_state: size & !15 | MMAPPED_SHORT }
    }

    /// Address of its first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes from [`start`](Self::start) to the next chunk, or to the end of its own mapping.
    pub fn size(&self) -> u64 {
        self.size_and_state & !15
    }

    /// Address after its last byte.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size())
    }

    /// What it is to malloc.
    pub fn state(&self) -> State {
        State::unpack(self.size_and_state)
    }

    /// The address that malloc returned for it.
    pub fn user(&self) -> u64 {
        self.start.saturating_add(16)
    }

    /// Bytes at [`user`](Self::user) that the program may use, as `malloc_usable_size` has it;
    /// 0 for a fencepost.
    pub fn usable(&self) -> u64 {
        match self.state() {
            State::Fencepost => 0,
            // The head falls 16 bytes short, and of these `memsize` takes 8 back (2.43).
            State::Mmapped if self.size_and_state & 15 == MMAPPED_SHORT => {
                self.size().saturating_sub(24)
            }
            // No chunk comes behind it that could lend it 8 bytes.
            State::Mmapped => self.size().saturating_sub(16),
            _ => self.size().saturating_sub(8),
        }
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}+{:#x} {:?}", self.start, self.size(), self.state())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_packing() {
        for state in State::ALL {
            let chunk = Chunk::new(0x1000, 0x40, state);
            assert_eq!((chunk.state(), chunk.size(), chunk.user()), (state, 0x40, 0x1010));
        }
        assert_eq!(std::mem::size_of::<Chunk>(), 16);
        assert_eq!(Chunk::new(!15, !15, State::InUse).end(), u64::MAX);
    }
}
