//! The formats and what they are called.

/// A format to export to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Compressed protocol buffer of `go tool pprof`, Pyroscope and others.
    Pprof,
    /// JSON of speedscope.
    Speedscope,
    /// A line for each stack, for flame graphs.
    Folded,
    /// JSON of the Firefox Profiler.
    Firefox,
    /// A table, for DuckDB, pandas, Spark.
    Parquet,
    /// The same table as text.
    Csv,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] = [
        Format::Pprof,
        Format::Speedscope,
        Format::Folded,
        Format::Firefox,
        Format::Parquet,
        Format::Csv,
    ];

    /// A word for options.
    pub fn name(self) -> &'static str {
        match self {
            Format::Pprof => "pprof",
            Format::Speedscope => "speedscope",
            Format::Folded => "folded",
            Format::Firefox => "firefox",
            Format::Parquet => "parquet",
            Format::Csv => "csv",
        }
    }

    /// The format that a word stands for.
    pub fn of_name(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|f| f.name() == name)
    }

    /// How a file's name ends, without the dot before it.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Pprof => "pb.gz",
            Format::Speedscope => "speedscope.json",
            Format::Folded => "folded",
            Format::Firefox => "json",
            Format::Parquet => "parquet",
            Format::Csv => "csv",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for format in Format::ALL {
            assert_eq!(Format::of_name(format.name()), Some(format));
        }
        assert_eq!(Format::of_name("Pprof"), None);
    }
}
