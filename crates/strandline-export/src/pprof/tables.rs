//! What a pprof file refers to by number: texts, functions, places, libraries; each once for all
//! processes.

use std::collections::HashMap;

use strandline_profile::Process;

use super::proto::{Function, Line, Location, Mapping};
use crate::names;
use crate::tree::{Place, Tree};

/// The tables.
#[derive(Default)]
pub struct Tables {
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64, i64), u64>,
    locations: HashMap<(u64, u64, i64, u64), u64>,
    libraries: HashMap<(i64, i64), u64>,
    /// Texts, the first one empty.
    pub string_table: Vec<String>,
    /// Functions.
    pub function: Vec<Function>,
    /// Places.
    pub location: Vec<Location>,
    /// The program, then libraries.
    pub mapping: Vec<Mapping>,
}

impl Tables {
    /// With the program's name, which the tools show.
    pub fn new(program: &str) -> Tables {
        let mut tables = Tables::default();
        tables.string("");
        let filename = tables.string(program);
        tables.library(filename, 0);
        tables
    }

    /// Number of a text.
    pub fn string(&mut self, text: &str) -> i64 {
        if let Some(&known) = self.strings.get(text) {
            return known;
        }
        let index = self.string_table.len() as i64;
        self.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    /// The places of a process.
    pub fn places(&mut self, process: &Process, tree: &Tree<'_>) -> Vec<u64> {
        let text = |index: u32| process.strings.get(index as usize).map_or("", String::as_str);
        let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let build_ids: HashMap<&str, String> =
            process.modules.iter().map(|m| (text(m.file), hex(&m.build_id))).collect();
        let none = String::new();
        tree.places
            .iter()
            .map(|place| {
                let mapping = if place.native {
                    let filename = self.string(place.file);
                    let build_id = self.string(build_ids.get(place.file).unwrap_or(&none));
                    self.library(filename, build_id)
                } else {
                    1
                };
                self.place(place, mapping)
            })
            .collect()
    }

    /// A place that is a name and nothing else.
    pub fn named(&mut self, name: &str) -> u64 {
        self.place(&Place { function: name.into(), ..Place::default() }, 1)
    }

    fn place(&mut self, place: &Place<'_>, mapping: u64) -> u64 {
        let function = self.function(place);
        let key = (mapping, function, i64::from(place.line), place.address);
        let Tables { locations, location, mapping: mappings, .. } = self;
        *locations.entry(key).or_insert_with(|| {
            let id = location.len() as u64 + 1;
            if let Some(library) = mappings.get_mut((mapping as usize).wrapping_sub(1)) {
                library.memory_limit = library.memory_limit.max(place.address.saturating_add(1));
            }
            let line = vec![Line { function_id: function, line: place.line.into() }];
            location.push(Location { id, mapping_id: mapping, address: place.address, line });
            id
        })
    }

    fn function(&mut self, place: &Place<'_>) -> u64 {
        let (name, filename) = (self.string(&place.function), self.string(place.file));
        let start_line = i64::from(place.first_line);
        if let Some(&known) = self.functions.get(&(name, filename, start_line)) {
            return known;
        }
        // `go tool pprof` takes a name that is the system's as well for C++ and deletes what
        // stands between angle brackets: nothing would be left of `<module>`.
        let system_name = self.string(&format!("{}:{}", names::base(place.file), place.function));
        let id = self.function.len() as u64 + 1;
        self.function.push(Function { id, name, system_name, filename, start_line });
        self.functions.insert((name, filename, start_line), id);
        id
    }

    fn library(&mut self, filename: i64, build_id: i64) -> u64 {
        let Tables { libraries, mapping, .. } = self;
        *libraries.entry((filename, build_id)).or_insert_with(|| {
            let id = mapping.len() as u64 + 1;
            mapping.push(Mapping {
                id,
                filename,
                build_id,
                // Names are all there, as good as they were known: nobody should look for others
                // in files of this machine.
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                ..Mapping::default()
            });
            id
        })
    }
}
