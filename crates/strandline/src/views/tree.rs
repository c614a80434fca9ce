//! `strandline tree`.

use std::process::ExitCode;

use strandline_views::{text, CallTree, Merged};

use super::{look, read_part, rendered};
use crate::census::write_report;
use crate::cli::views::TreeOptions;
use crate::error::Error;

pub fn show(options: &TreeOptions) -> ExitCode {
    write_report(options.common.output.as_deref(), || make(options))
}

fn make(options: &TreeOptions) -> Result<String, Error> {
    let common = &options.common;
    let profile = read_part(&common.file, &common.part)?;
    let failed = |e| Error::View(common.file.to_owned(), e);
    let merged = Merged::new(&profile, common.process).map_err(failed)?;
    if let Some(name) = &options.thread {
        merged.check_thread(name).map_err(failed)?;
    }
    let what = strandline_views::TreeOptions {
        weight: options.weight,
        inverted: options.inverted,
        thread: options.thread.clone(),
        depth: options.depth,
        min_percent: options.min,
    };
    let look = look(&common.file, common.output.as_deref());
    let tree = CallTree::new(&merged, &what);
    rendered(&tree, options.json, |tree| text::tree(tree, &look))
}
