//! `strandline report`.

use std::process::ExitCode;

use strandline_report::Files;
use strandline_views::{text, Ledger, Merged, Report};

use super::{look, read_part, rendered};
use crate::census::write_report;
use crate::cli::views::ReportOptions;
use crate::error::Error;

pub fn show(options: &ReportOptions) -> ExitCode {
    write_report(options.common.output.as_deref(), || make(options))
}

fn make(options: &ReportOptions) -> Result<String, Error> {
    let common = &options.common;
    let profile = read_part(&common.file, &common.part)?;
    let merged = Merged::new(&profile, common.process)
        .map_err(|e| Error::View(common.file.to_owned(), e))?;
    let look = look(&common.file, common.output.as_deref());
    if let Some(wanted) = &options.lines {
        let ledger = Ledger::new(&merged, wanted, &Files)
            .map_err(|e| Error::View(common.file.to_owned(), e))?;
        return rendered(&ledger, options.json, |ledger| text::lines(ledger, &look));
    }
    let report = Report::new(&merged, options.top, &Files);
    rendered(&report, options.json, |report| text::report(report, &look))
}
