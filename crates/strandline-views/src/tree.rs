//! The call tree, from the outside in or from the inside out, as rows that can be shown.

mod forward;
mod inverted;

use serde::Serialize;
use strandline_profile::{Amount, Weight};

use crate::merge::{is_thread, Merged};
use crate::place::Place;
use crate::run::{first_run, RunRow};
use crate::sums::{own, share, sum};

use forward::Forward;
use inverted::Inverted;

/// What is shown of a tree.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeOptions {
    /// The figure.
    pub weight: Weight,
    /// From the place that allocates to those that call it.
    pub inverted: bool,
    /// Of one thread, by name or id, only.
    pub thread: Option<String>,
    /// Levels below the top one; a folded chain of calls is one level.
    pub depth: u32,
    /// What has less than this percent of all is put together.
    pub min_percent: f64,
}

/// A row: calls that lead to one another, or several small ones put together.
#[derive(Debug, Clone, Serialize)]
pub struct TreeRow<'m> {
    /// Level; the top row, which stands for all, has 0.
    pub depth: u32,
    /// Index of the row that it stands below.
    pub parent: Option<usize>,
    /// The calls, in the order in which one leads to the next. Empty: the top row, a row of
    /// omitted ones, or what was allocated while no code was known to run.
    pub calls: Vec<Place<'m>>,
    /// Number of rows that are put together in this one; null in an ordinary row.
    pub omitted: Option<usize>,
    /// What the last of the calls has with all below it.
    pub total: Amount,
    /// What is in no row below.
    pub own: Amount,
    /// Percent that the total is of all.
    pub share: f64,
}

/// A call tree: a row's total is what it has itself and the totals of the rows one level below it.
#[derive(Debug, Clone, Serialize)]
pub struct CallTree<'m> {
    /// Name of the format.
    pub schema: &'static str,
    /// How the profile was made.
    pub run: Option<RunRow<'m>>,
    /// The figure.
    pub weight: &'static str,
    /// Callers stand below what they call.
    pub inverted: bool,
    /// The thread, if it is of one only.
    pub thread: Option<String>,
    /// The rows, each before those below it, larger ones before smaller ones.
    pub rows: Vec<TreeRow<'m>>,
    /// The figure itself, for the text.
    #[serde(skip)]
    pub figure: Weight,
}

/// A way through the tree.
trait Walk {
    /// Something that can be opened.
    type Item: Copy;

    /// Everything.
    fn root(&self) -> Self::Item;

    /// What an item has itself, and the items below it. Each is opened once at most, and before
    /// any of those below it.
    fn open(&mut self, item: Self::Item) -> (Amount, Vec<Child<Self::Item>>);
}

/// An item below another.
struct Child<I> {
    item: I,
    /// Index of the place; none: no code was known to run.
    place: Option<u32>,
    total: Amount,
}

/// A row that is still to be made.
enum Waiting<I> {
    Call(Child<I>),
    Omitted(usize, Amount),
}

impl<'m> CallTree<'m> {
    /// The tree of a figure.
    pub fn new(merged: &'m Merged<'m>, options: &TreeOptions) -> CallTree<'m> {
        let own = own(merged, options.weight, |entry| {
            let thread = options.thread.as_deref();
            thread.is_none_or(|name| entry.thread.is_some_and(|t| is_thread(t, name)))
        });
        let all = sum(&own);
        let rows = match options.inverted {
            false => rows(Forward::new(merged, own), merged, all, options),
            true => rows(Inverted::new(merged, &own), merged, all, options),
        };
        CallTree {
            schema: "strandline-tree/1",
            run: first_run(merged),
            weight: options.weight.name(),
            inverted: options.inverted,
            thread: options.thread.clone(),
            rows,
            figure: options.weight,
        }
    }
}

fn rows<'m, W: Walk>(
    mut walk: W,
    merged: &'m Merged<'m>,
    all: Amount,
    options: &TreeOptions,
) -> Vec<TreeRow<'m>> {
    let mut rows: Vec<TreeRow<'m>> = Vec::new();
    let root = Child { item: walk.root(), place: None, total: all };
    let mut stack: Vec<(u32, Option<usize>, Waiting<W::Item>)> =
        vec![(0, None, Waiting::Call(root))];
    while let Some((depth, parent, waiting)) = stack.pop() {
        let call = match waiting {
            Waiting::Call(call) => call,
            Waiting::Omitted(count, total) => {
                let share = share(total.bytes, all.bytes);
                let calls = Vec::new();
                let row = TreeRow {
                    depth,
                    parent,
                    calls,
                    omitted: Some(count),
                    total,
                    own: Amount::default(),
                    share,
                };
                rows.push(row);
                continue;
            }
        };
        let total = call.total;
        let mut calls: Vec<Place<'m>> = call.place.map(|i| merged.place(i)).into_iter().collect();
        let (mut own, mut below) = walk.open(call.item);
        // A call that only leads to another one shares its row.
        while let [only] = below.as_slice() {
            let Some(place) = only.place else { break };
            if depth == 0 || own != Amount::default() {
                break;
            }
            calls.push(merged.place(place));
            (own, below) = walk.open(only.item);
        }
        let index = rows.len();
        let share = share(total.bytes, all.bytes);
        rows.push(TreeRow { depth, parent, calls, omitted: None, total, own, share });
        let least = if depth >= options.depth { f64::INFINITY } else { options.min_percent };
        push_below(&mut stack, below, (depth + 1, index), all, least);
    }
    rows
}

/// Puts the items below a row on the stack, the largest on top, those below `least` percent
/// together at the bottom.
fn push_below<I>(
    stack: &mut Vec<(u32, Option<usize>, Waiting<I>)>,
    mut below: Vec<Child<I>>,
    (depth, parent): (u32, usize),
    all: Amount,
    least: f64,
) {
    below.sort_by_key(|child| (child.total.bytes, child.total.blocks));
    // An amount of 0 bytes has no percentage to speak of.
    let is_small =
        |child: &Child<I>| least == f64::INFINITY || share(child.total.bytes, all.bytes) < least;
    let (small, large): (Vec<_>, Vec<_>) = below.into_iter().partition(is_small);
    if !small.is_empty() {
        let total = small.iter().fold(Amount::default(), |sum, child| sum.plus(child.total));
        stack.push((depth, Some(parent), Waiting::Omitted(small.len(), total)));
    }
    stack.extend(large.into_iter().map(|child| (depth, Some(parent), Waiting::Call(child))));
}
