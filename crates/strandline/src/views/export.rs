//! `strandline export`.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use strandline_export::{export, ExportError, Format, Options};

use super::read_part;
use crate::cli::views::ExportOptions;
use crate::error::{Error, OUR_FAILURE};
use crate::record::Place;

pub fn show(options: &ExportOptions) -> ExitCode {
    match make(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            e.print();
            ExitCode::from(OUR_FAILURE)
        }
    }
}

fn make(options: &ExportOptions) -> Result<(), Error> {
    let settings = Options { weight: options.weight, process: options.process };
    let failed = |to: &Path, e: ExportError| match e {
        ExportError::Io(e) => Error::Output(to.to_owned(), e),
        e => Error::Export(options.file.clone(), e),
    };
    if let Some(path) = &options.output {
        let mut place = Place::prepare(path, options.force)?;
        let profile = read_part(&options.file, &options.part)?;
        place.write_with(|to| {
            export(&profile, options.format, &settings, to).map_err(|e| failed(path, e))
        })?;
        return Ok(());
    }
    let stdout = io::stdout();
    let is_text = !matches!(options.format, Format::Pprof | Format::Parquet);
    if stdout.is_terminal() && !is_text {
        return Err(Error::NotForTerminals(options.format.name()));
    }
    let profile = read_part(&options.file, &options.part)?;
    let mut to = BufWriter::new(stdout.lock());
    let done = export(&profile, options.format, &settings, &mut to)
        .and_then(|()| to.flush().map_err(ExportError::Io));
    match done {
        // `strandline export ... | head` is no failure.
        Err(ExportError::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(ExportError::Io(e)) => Err(Error::Stdout(e)),
        Err(e) => Err(Error::Export(options.file.clone(), e)),
        Ok(()) => Ok(()),
    }
}
