//! The lists that alone can tell what is in them: unsorted and fast.

use strandline_image::Image;

use crate::chunk::State;
use crate::heap::Heap;
use crate::layout::{Layout, BIN_AS_CHUNK, FAST_BINS};
use crate::model::{Doubt, What};
use crate::walk::{FLAGS as CHUNK_FLAGS, IS_MMAPPED};

/// Heaps sorted by address, and what is looked up in them.
pub(crate) struct Book<'a> {
    pub image: &'a Image,
    pub heaps: &'a mut [Heap],
    pub doubts: &'a mut Vec<Doubt>,
}

/// Number of a heap, and of a chunk in it.
pub(crate) type Place = (usize, usize);

impl Book<'_> {
    /// The chunk that starts at `address`.
    pub(crate) fn place(&self, address: u64) -> Option<Place> {
        let heap = self.heaps.partition_point(|heap| heap.start <= address).checked_sub(1)?;
        Some((heap, self.heaps[heap].starting_at(address)?))
    }

    /// State and size of the chunk there.
    pub(crate) fn look(&self, place: Place) -> Option<(State, u64)> {
        let chunk = self.heaps.get(place.0)?.get(place.1)?;
        Some((chunk.state(), chunk.size()))
    }

    pub(crate) fn mark(&mut self, place: Place, state: State) {
        if let Some(heap) = self.heaps.get_mut(place.0) {
            heap.set(place.1, state);
        }
    }

    pub(crate) fn doubt(&mut self, what: What, address: u64) {
        self.doubts.push(Doubt { what, address });
    }

    /// Marks what is in an arena's unsorted list.
    pub(crate) fn unsorted(&mut self, arena: u64, layout: &Layout) {
        let list = arena + layout.bins - BIN_AS_CHUNK;
        let mut at = self.image.word(list + 16);
        while let Some(chunk) = at.filter(|chunk| *chunk != list) {
            let place = self.place(chunk);
            let free = place.filter(|place| {
                let state = self.look(*place).map(|(state, _)| state);
                matches!(state, Some(State::SmallBin | State::LargeBin))
            });
            // A chunk that is in the list twice has been marked: no list is followed for ever.
            let Some(place) = free else {
                self.doubt(What::ListBroken, chunk);
                return;
            };
            self.mark(place, State::Unsorted);
            at = self.image.word(chunk + 16);
        }
    }

    /// Marks what is in an arena's fast bins.
    pub(crate) fn fast(&mut self, arena: u64, layout: &Layout) {
        let Some(bins) = layout.fast else { return };
        for number in 0..FAST_BINS {
            let first = self.image.word(arena + bins + number * 8).unwrap_or(0);
            let size = |_, size| size == 32 + number * 16;
            // Pointers are protected since 2.32.
            let list = match self.list(first, 0, true, &size) {
                Ok(list) => list,
                Err(safe) => self.list(first, 0, false, &size).unwrap_or_else(|plain| {
                    self.doubt(What::ListBroken, first);
                    if plain.len() > safe.len() {
                        plain
                    } else {
                        safe
                    }
                }),
            };
            for place in list {
                self.mark(place, State::Fast);
            }
        }
    }

    /// The chunks of a list whose pointers lead to chunks' user part, less `user` bytes: all in
    /// use by their neighbours' word and `fits(start, size)`. `Err` with those before the first
    /// that can't be. Chunks with their own mapping are passed over.
    pub(crate) fn list(
        &self,
        first: u64,
        user: u64,
        protected: bool,
        fits: &dyn Fn(u64, u64) -> bool,
    ) -> Result<Vec<Place>, Vec<Place>> {
        let mut list = Vec::new();
        let mut at = first;
        let mut left = self.heaps.iter().map(Heap::len).sum::<usize>();
        while at != 0 {
            let Some(chunk) = at.checked_sub(user) else { return Err(list) };
            let place = self.place(chunk);
            let used = match place.and_then(|place| self.look(place)) {
                Some((state, size)) => state == State::InUse && fits(chunk, size),
                None => self.mmapped_size(chunk).is_some_and(|size| fits(chunk, size)),
            };
            if !used || left == 0 {
                return Err(list);
            }
            left -= 1;
            list.extend(place);
            let link = chunk + 16;
            let Some(next) = self.image.word(link) else { return Err(list) };
            at = if protected { next ^ (link >> 12) } else { next };
        }
        Ok(list)
    }

    /// Size of a chunk with its own mapping, as its head has it.
    fn mmapped_size(&self, chunk: u64) -> Option<u64> {
        let head = self.image.word(chunk.checked_add(8)?)?;
        (chunk % 16 == 0 && chunk < 1 << 62 && head & CHUNK_FLAGS == IS_MMAPPED)
            .then_some(head & !CHUNK_FLAGS)
    }
}
