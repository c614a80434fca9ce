//! `strandline stats`.

use std::process::ExitCode;

use strandline_views::{text, Merged, Stats};

use super::{look, read_part, rendered};
use crate::census::write_report;
use crate::cli::views::StatsOptions;
use crate::error::Error;

pub fn show(options: &StatsOptions) -> ExitCode {
    write_report(options.common.output.as_deref(), || make(options))
}

fn make(options: &StatsOptions) -> Result<String, Error> {
    let common = &options.common;
    if options.replay {
        return super::replay::make(common, options.json);
    }
    let profile = read_part(&common.file, &common.part)?;
    let merged = Merged::new(&profile, common.process)
        .map_err(|e| Error::View(common.file.to_owned(), e))?;
    let look = look(&common.file, common.output.as_deref());
    let stats = Stats::new(&merged, options.top);
    rendered(&stats, options.json, |stats| text::stats(stats, &look))
}
