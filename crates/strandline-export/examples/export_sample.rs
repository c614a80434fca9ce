//! For `scripts/check-exports` without a run: makes a profile up, and exports one as `strandline
//! export` does.
//!
//!     sample make FILE [PATHS]
//!     sample export FILE --format FORMAT -o OUT

#[path = "../tests/sample/mod.rs"]
mod sample;

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};

use strandline_export::{export, Format, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["make", file] => make(file, 0),
        ["make", file, paths] => make(file, paths.parse()?),
        ["export", file, "--format", format, "-o", out] => {
            let format = Format::of_name(format).ok_or("no such format")?;
            let profile = strandline_profile::read(&mut BufReader::new(File::open(file)?))?;
            let mut to = BufWriter::new(File::create(out)?);
            Ok(export(&profile, format, &Options::default(), &mut to)?)
        }
        _ => Err("sample make FILE [PATHS] | sample export FILE --format FORMAT -o OUT".into()),
    }
}

fn make(file: &str, paths: usize) -> Result<(), Box<dyn Error>> {
    let mut to = BufWriter::new(File::create(file)?);
    Ok(strandline_profile::write(&sample::profile(paths), &mut to)?)
}
