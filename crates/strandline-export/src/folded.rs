//! Folded stacks: `outermost;…;innermost bytes`, a line for each call path.

use std::io::Write;

use strandline_profile::{Process, Weight};

use crate::csv::join;
use crate::error::ExportError;
use crate::names;
use crate::view::View;

/// Writes the stacks of all processes. Where there are several, each is a frame of its own under
/// its stacks: what a forked child took over from its parent would be counted twice otherwise.
pub fn write(
    processes: &[&Process],
    weight: Weight,
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    let (mut places, mut stack) = (Vec::new(), String::new());
    for process in processes {
        let view = View::of(process);
        let texts: Vec<String> =
            view.tree.places.iter().map(|p| names::folded(&names::place(p))).collect();
        let root = match processes {
            [_] => String::new(),
            _ => names::folded(&names::process(process)) + ";",
        };
        for (node, bytes) in view.by_node(weight) {
            view.tree.stack(node, &mut places);
            join(&places, &texts, &mut stack);
            writeln!(to, "{root}{stack} {bytes}")?;
        }
    }
    to.flush()?;
    Ok(())
}
