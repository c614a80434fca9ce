//! `strandline flamegraph`, and the page of `strandline diff --html`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use strandline_flame::{Disk, FlameError, NoSources, Options, Sources};

use super::read_part;
use crate::cli::views::FlamegraphOptions;
use crate::error::{Error, OUR_FAILURE};
use crate::record::Place;

pub fn show(options: &FlamegraphOptions) -> ExitCode {
    match make(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            e.print();
            ExitCode::from(OUR_FAILURE)
        }
    }
}

fn make(options: &FlamegraphOptions) -> Result<(), Error> {
    let output = options.output.clone().unwrap_or_else(|| options.file.with_extension("html"));
    let mut place = Place::prepare(&output, options.force)?;
    let profile = read_part(&options.file, &options.part)?;
    let page = Options {
        sources: !options.no_source,
        title: options.title.clone(),
        weight: options.weight,
    };
    let disk = Disk::new();
    let sources: &dyn Sources = if options.no_source { &NoSources } else { &disk };
    write_page(&mut place, &output, |to| strandline_flame::render(&profile, &page, sources, to))
}

/// Writes a page, and says where it is.
pub fn write_page(
    place: &mut Place,
    path: &Path,
    render: impl FnOnce(&mut dyn Write) -> Result<(), FlameError>,
) -> Result<(), Error> {
    let written = place.write_with(|to| {
        render(to).map_err(|e| match e {
            FlameError::Io(e) => Error::Output(path.to_owned(), e),
            e => Error::Page(path.to_owned(), e),
        })
    })?;
    let size = written.bytes.div_ceil(1024);
    crate::error::say(&format!(
        "the page is {} ({size} KiB); open it in a browser",
        path.display()
    ));
    Ok(())
}
