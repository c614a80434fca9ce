//! CSV, RFC 4180: a header, then one row for each call path.

use std::io::Write;

use strandline_profile::Process;

use crate::columns::{Column, Part, COLUMNS};
use crate::error::ExportError;
use crate::names;
use crate::view::View;

/// Writes the rows of all processes.
pub fn write(processes: &[&Process], to: &mut dyn Write) -> Result<(), ExportError> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(to);
    csv.write_record(COLUMNS.iter().map(|(name, _)| name))?;
    let mut places = Vec::new();
    for process in processes {
        let part = Part::of(View::of(process));
        let texts: Vec<String> =
            part.view.tree.places.iter().map(|p| names::folded(&names::place(p))).collect();
        let mut stack = String::new();
        for row in &part.view.rows {
            for (_, column) in &COLUMNS {
                match column {
                    Column::Number(number) => csv.write_field(number(&part, row).to_string())?,
                    Column::Text(text) => csv.write_field(&*text(&part, row))?,
                    Column::Stack => {
                        part.view.tree.stack(row.node, &mut places);
                        join(&places, &texts, &mut stack);
                        csv.write_field(&stack)?;
                    }
                }
            }
            csv.write_record(None::<&[u8]>)?;
        }
    }
    csv.flush()?;
    Ok(())
}

/// The texts of a stack with `;` between them.
pub fn join(stack: &[u32], texts: &[String], to: &mut String) {
    to.clear();
    for (i, &place) in stack.iter().enumerate() {
        if i > 0 {
            to.push(';');
        }
        to.push_str(texts.get(place as usize).map_or("", String::as_str));
    }
}
