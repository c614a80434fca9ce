//! `strandline table`.

use std::process::ExitCode;

use strandline_views::{text, Merged, Table};

use super::{look, read_part, rendered, rows};
use crate::census::write_report;
use crate::cli::views::TableOptions;
use crate::error::Error;

pub fn show(options: &TableOptions) -> ExitCode {
    write_report(options.common.output.as_deref(), || make(options))
}

fn make(options: &TableOptions) -> Result<String, Error> {
    let common = &options.common;
    let profile = read_part(&common.file, &common.part)?;
    let failed = |e| Error::View(common.file.to_owned(), e);
    let merged = Merged::new(&profile, common.process).map_err(failed)?;
    let thread = options.thread.as_deref();
    if let Some(name) = thread {
        merged.check_thread(name).map_err(failed)?;
    }
    let top = rows(options.top, options.json || options.csv);
    let table = Table::new(&merged, options.weight, options.by, options.sort, top, thread);
    let table = table.map_err(failed)?;
    if options.csv {
        return Ok(text::table_csv(&table));
    }
    let look = look(&common.file, common.output.as_deref());
    rendered(&table, options.json, |table| text::table(table, &look))
}
