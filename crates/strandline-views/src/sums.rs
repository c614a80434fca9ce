//! Sums over the tree: what nodes have themselves, and with what they call.

use strandline_profile::{Amount, Weight};

use crate::merge::{Entry, Merged};

/// What each node allocated itself, over those entries that `keep` wants.
pub(crate) fn own(merged: &Merged, weight: Weight, keep: impl Fn(&Entry) -> bool) -> Vec<Amount> {
    let mut own = vec![Amount::default(); merged.node_count()];
    for entry in merged.entries().filter(|entry| keep(entry)) {
        add(&mut own, entry.node, weight.of(entry.path));
    }
    own
}

/// Adds to an entry of a table; an index that isn't there is left out.
pub(crate) fn add(table: &mut [Amount], index: u32, amount: Amount) {
    if let Some(entry) = table.get_mut(index as usize) {
        *entry = entry.plus(amount);
    }
}

/// All of a table.
pub(crate) fn sum(amounts: &[Amount]) -> Amount {
    amounts.iter().fold(Amount::default(), |all, &amount| all.plus(amount))
}

/// What each node allocated with all that it calls. The root has the sum of all.
pub(crate) fn total(merged: &Merged, own: &[Amount]) -> Vec<Amount> {
    let mut total = own.to_vec();
    // Children stand behind their parents: each is complete before it is added.
    for node in (1..total.len()).rev() {
        let amount = total.get(node).copied().unwrap_or_default();
        add(&mut total, merged.parent(node as u32), amount);
    }
    total
}

/// Each node's children.
#[derive(Debug)]
pub(crate) struct Children {
    /// Where a node's children begin; one more entry than there are nodes.
    first: Vec<u32>,
    list: Vec<u32>,
}

impl Children {
    pub fn of(merged: &Merged) -> Children {
        let count = merged.node_count();
        let mut first = vec![0u32; count + 1];
        for node in 1..count as u32 {
            if let Some(n) = first.get_mut(merged.parent(node) as usize + 1) {
                *n += 1;
            }
        }
        let mut sum = 0;
        for n in &mut first {
            sum += *n;
            *n = sum;
        }
        let mut next = first.clone();
        let mut list = vec![0; count.saturating_sub(1)];
        for node in 1..count as u32 {
            let Some(at) = next.get_mut(merged.parent(node) as usize) else { continue };
            if let Some(slot) = list.get_mut(*at as usize) {
                *slot = node;
            }
            *at += 1;
        }
        Children { first, list }
    }

    /// The children of a node, in the order in which they became known.
    pub fn of_node(&self, node: u32) -> &[u32] {
        let bound = |i: usize| self.first.get(i).map_or(0, |&n| n as usize);
        self.list.get(bound(node as usize)..bound(node as usize + 1)).unwrap_or(&[])
    }
}

/// Sums with callees by a grouping of places: what was allocated while a place of the group was on
/// the stack. A path that has the group more than once (recursion) counts once. `totals`: one table
/// or more, each by node with callees. Group 0 is what no code was known for.
pub(crate) fn with_callees(
    merged: &Merged,
    children: &Children,
    group_of_place: &[u32],
    groups: usize,
    totals: &[&[Amount]],
) -> Vec<Vec<Amount>> {
    let mut sums = vec![vec![Amount::default(); groups]; totals.len()];
    let mut on_stack = vec![0u32; groups];
    let group = |node: u32| {
        group_of_place.get(merged.place_index(node) as usize).copied().unwrap_or(0) as usize
    };
    // Nodes that are entered, each with the number of its children that were seen to.
    let mut stack: Vec<(u32, usize)> = vec![(0, 0)];
    while let Some((node, done)) = stack.last_mut() {
        let node = *node;
        if let Some(&child) = children.of_node(node).get(*done) {
            *done += 1;
            let of_child = group(child);
            let depth = on_stack.get_mut(of_child).map_or(0, |n| {
                *n += 1;
                *n
            });
            if depth == 1 {
                for (sum, total) in sums.iter_mut().zip(totals) {
                    add(
                        sum,
                        of_child as u32,
                        total.get(child as usize).copied().unwrap_or_default(),
                    );
                }
            }
            stack.push((child, 0));
        } else {
            if let Some(n) = on_stack.get_mut(group(node)).filter(|_| node != 0) {
                *n -= 1;
            }
            stack.pop();
        }
    }
    sums
}

/// Indices of the `top` largest of `count` by a key, the largest first; the same ones every time.
pub(crate) fn largest<K: Ord>(
    indices: impl IntoIterator<Item = u32>,
    top: usize,
    key: impl Fn(u32) -> K,
) -> Vec<u32> {
    let mut list: Vec<u32> = indices.into_iter().collect();
    let order = |a: &u32, b: &u32| key(*b).cmp(&key(*a)).then(a.cmp(b));
    if top < list.len() {
        if top == 0 {
            return Vec::new();
        }
        list.select_nth_unstable_by(top - 1, order);
        list.truncate(top);
    }
    list.sort_unstable_by(order);
    list
}

/// Percent of a whole; 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}
