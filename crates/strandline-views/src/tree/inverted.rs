//! From what allocates to its callers.
//!
//! The tree of all callers is much larger than that of the calls, so it is never made: an item is
//! a range of a list that has an entry for each call path. Opening it moves its entries one call
//! outwards and sorts them by place; items below it are parts of the same range.

use strandline_profile::Amount;

use super::{Child, Walk};
use crate::merge::Merged;

/// A call path, and how far it was followed.
#[derive(Clone, Copy)]
struct Cursor {
    node: u32,
    own: Amount,
}

pub(super) struct Inverted<'m> {
    merged: &'m Merged<'m>,
    cursors: Vec<Cursor>,
}

/// A range of the cursors.
#[derive(Clone, Copy)]
pub(super) struct Item {
    from: usize,
    to: usize,
    /// The cursors stand at what allocates.
    root: bool,
}

impl<'m> Inverted<'m> {
    pub fn new(merged: &'m Merged<'m>, own: &[Amount]) -> Inverted<'m> {
        let cursor = |(node, &own): (usize, &Amount)| Cursor { node: node as u32, own };
        let has_any = |cursor: &Cursor| cursor.own != Amount::default();
        let cursors = own.iter().enumerate().map(cursor).filter(has_any).collect();
        Inverted { merged, cursors }
    }
}

impl Walk for Inverted<'_> {
    type Item = Item;

    fn root(&self) -> Item {
        Item { from: 0, to: self.cursors.len(), root: true }
    }

    fn open(&mut self, item: Item) -> (Amount, Vec<Child<Item>>) {
        let merged = self.merged;
        let Some(cursors) = self.cursors.get_mut(item.from..item.to) else {
            return Default::default();
        };
        if !item.root {
            for cursor in cursors.iter_mut() {
                cursor.node = merged.parent(cursor.node);
            }
        }
        // The outermost calls have no caller: they come first. In the top row they are what no
        // code is known for.
        let key = |cursor: &Cursor| match cursor.node {
            0 => None,
            node => Some(merged.place_index(node)),
        };
        cursors.sort_unstable_by_key(|cursor| (key(cursor), cursor.node));
        let mut own = Amount::default();
        let mut below: Vec<Child<Item>> = Vec::new();
        for (i, cursor) in cursors.iter().enumerate() {
            let (at, place) = (item.from + i, key(cursor));
            if place.is_none() && !item.root {
                own = own.plus(cursor.own);
                continue;
            }
            match below.last_mut() {
                Some(last) if last.place == place => {
                    last.item.to = at + 1;
                    last.total = last.total.plus(cursor.own);
                }
                _ => below.push(Child {
                    item: Item { from: at, to: at + 1, root: false },
                    place,
                    total: cursor.own,
                }),
            }
        }
        (own, below)
    }
}
