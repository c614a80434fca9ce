//! From callers to what they call.

use strandline_profile::Amount;

use super::{Child, Walk};
use crate::merge::Merged;
use crate::sums::{total, Children};

pub(super) struct Forward<'m> {
    merged: &'m Merged<'m>,
    children: Children,
    own: Vec<Amount>,
    total: Vec<Amount>,
}

/// What is below the root.
#[derive(Clone, Copy)]
pub(super) enum Item {
    Node(u32),
    /// What no code is known for: the root's own, which has a row of its own.
    Unknown,
}

impl<'m> Forward<'m> {
    pub fn new(merged: &'m Merged<'m>, own: Vec<Amount>) -> Forward<'m> {
        let total = total(merged, &own);
        Forward { merged, children: Children::of(merged), own, total }
    }

    fn own(&self, node: u32) -> Amount {
        self.own.get(node as usize).copied().unwrap_or_default()
    }
}

impl Walk for Forward<'_> {
    type Item = Item;

    fn root(&self) -> Item {
        Item::Node(0)
    }

    fn open(&mut self, item: Item) -> (Amount, Vec<Child<Item>>) {
        let Item::Node(node) = item else { return (self.own(0), Vec::new()) };
        let mut below: Vec<Child<Item>> = self
            .children
            .of_node(node)
            .iter()
            .map(|&child| Child {
                item: Item::Node(child),
                place: Some(self.merged.place_index(child)),
                total: self.total.get(child as usize).copied().unwrap_or_default(),
            })
            .filter(|child| child.total != Amount::default())
            .collect();
        let own = self.own(node);
        if node != 0 {
            return (own, below);
        }
        if own != Amount::default() {
            below.push(Child { item: Item::Unknown, place: None, total: own });
        }
        (Amount::default(), below)
    }
}
