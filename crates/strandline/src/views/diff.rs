//! `strandline diff`.

use std::process::ExitCode;

use strandline_flame::{Disk, Options};
use strandline_views::{text, By, Diff, Merged};

use super::flamegraph::write_page;
use super::{look, read, rendered, rows};
use crate::census::write_report;
use crate::cli::views::DiffOptions;
use crate::error::Error;
use crate::record::Place;

pub fn show(options: &DiffOptions) -> ExitCode {
    write_report(options.output.as_deref(), || make(options))
}

fn make(options: &DiffOptions) -> Result<String, Error> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    let merged = Merged::of(&[&before, &after], None)
        .map_err(|e| Error::View(options.after.to_owned(), e))?;
    if let Some(path) = &options.html {
        let mut place = Place::prepare(path, false)?;
        let page = Options { weight: options.weight, ..Options::default() };
        write_page(&mut place, path, |to| {
            strandline_flame::render_diff(&before, &after, &page, &Disk::new(), to)
        })?;
    }
    let top = rows(options.top, options.json);
    let diff = match options.by {
        By::Type => {
            Diff::by_type(&merged, top).map_err(|e| Error::View(options.after.to_owned(), e))?
        }
        by => Diff::new(&merged, options.weight, by, top),
    };
    let look = look(&options.after, options.output.as_deref());
    rendered(&diff, options.json, |diff| text::diff(diff, &look))
}
