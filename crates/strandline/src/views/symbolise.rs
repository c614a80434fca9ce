//! `strandline symbolise`.

use std::path::Path;
use std::process::ExitCode;

use strandline_profile::{FileError, FrameKind, Profile};

use super::{open, say_doubts};
use crate::cli::views::SymboliseOptions;
use crate::error::{Error, OUR_FAILURE};
use crate::record::{self, Place};

pub fn show(options: &SymboliseOptions) -> ExitCode {
    match make(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            e.print();
            ExitCode::from(OUR_FAILURE)
        }
    }
}

fn make(options: &SymboliseOptions) -> Result<(), Error> {
    let recorded = open(&options.file)?;
    let mut profile = recorded.profile.clone();
    let mut place = match &options.output {
        Some(output) => Place::prepare(output, options.force)?,
        None => Place::prepare(&options.file, true)?,
    };
    let before = nameless(&profile);
    // Where a library was not found at the end of the run, it may be found now.
    profile.doubts.retain(|doubt| !strandline_symbols::is_about_names(doubt));
    record::name(&mut profile, &options.dirs);
    say_doubts(&options.file, &profile);
    let left = nameless(&profile);
    let to = options.output.as_deref().unwrap_or(&options.file);
    let written = place.write_with(|out| {
        recorded.write(&profile, out).map_err(|e| match e {
            FileError::Io(e) => Error::Output(to.to_owned(), e),
            e => Error::Profile(to.to_owned(), e),
        })
    })?;
    let path: &Path = &written.path;
    crate::error::say(&format!(
        "{} of {before} native frames without a name got one; {left} have none: {}",
        before.saturating_sub(left),
        path.display()
    ));
    Ok(())
}

/// Number of native frames without a name.
fn nameless(profile: &Profile) -> usize {
    let frames = profile.processes.iter().flat_map(|process| &process.frames);
    frames.filter(|frame| frame.kind == FrameKind::Native && frame.function == 0).count()
}
