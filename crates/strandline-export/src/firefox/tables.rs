//! What stacks are made of: frames, functions, libraries and texts, each once.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::json;
use crate::names::base;
use crate::tree::{Place, Tree};

/// Categories by index: name and colour. The grey one is that of what is not known.
pub const CATEGORIES: [(&str, &str); 3] =
    [("Other", "grey"), ("Python", "blue"), ("Native", "orange")];
const OTHER: u8 = 0;
const PYTHON: u8 = 1;
const NATIVE: u8 = 2;

/// Texts, each once.
#[derive(Default)]
struct Names<'a> {
    strings: Vec<&'a str>,
    known: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn string(&mut self, text: &'a str) -> usize {
        let Names { strings, known } = self;
        *known.entry(text).or_insert_with(|| {
            strings.push(text);
            strings.len() - 1
        })
    }
}

/// A function: what places of the same name, file and kind are in.
struct Function {
    name: usize,
    file: Option<usize>,
    resource: Option<usize>,
    line: u32,
}

/// Writes the tables of a thread.
pub fn write(tree: &Tree<'_>, to: &mut dyn Write) -> io::Result<()> {
    let mut names = Names::default();
    let mut libraries: HashMap<usize, usize> = HashMap::new();
    let mut resources: Vec<usize> = Vec::new();
    let mut known: HashMap<(usize, usize, bool, u32), usize> = HashMap::new();
    let mut functions: Vec<Function> = Vec::new();
    let mut function_of: Vec<usize> = Vec::with_capacity(tree.places.len());
    for place in &tree.places {
        let (name, file) = (names.string(&place.function), names.string(place.file));
        let key = (name, file, place.native, place.first_line);
        let function = *known.entry(key).or_insert_with(|| {
            let library = || {
                *libraries.entry(file).or_insert_with(|| {
                    resources.push(names.string(base(place.file)));
                    resources.len() - 1
                })
            };
            let has_file = !place.file.is_empty();
            functions.push(Function {
                name,
                file: (has_file && !place.native).then_some(file),
                resource: (has_file && place.native).then(library),
                line: place.first_line,
            });
            functions.len() - 1
        });
        function_of.push(function);
    }
    stack_table(tree, to)?;
    frame_table(tree, &function_of, to)?;
    func_table(&functions, to)?;
    resource_table(&resources, to)?;
    to.write_all(
        b"\"nativeSymbols\":{\"length\":0,\"libIndex\":[],\"address\":[],\"name\":[],\
          \"functionSize\":[]},",
    )?;
    json::array(to, "stringArray", names.strings.iter().map(|s| json::text(s)))
}

fn stack_table(tree: &Tree<'_>, to: &mut dyn Write) -> io::Result<()> {
    let nodes = tree.nodes.get(1..).unwrap_or_default();
    write!(to, "\"stackTable\":{{\"length\":{},", nodes.len())?;
    let prefix = |parent: u32| match parent.checked_sub(1) {
        Some(stack) => stack.to_string(),
        None => "null".into(),
    };
    json::array(to, "prefix", nodes.iter().map(|n| prefix(n.parent)))?;
    to.write_all(b",")?;
    json::array(to, "frame", nodes.iter().map(|n| n.place))?;
    to.write_all(b"},")
}

fn category(place: &Place<'_>) -> u8 {
    match (place.is_unknown(), place.native) {
        (true, _) => OTHER,
        (_, true) => NATIVE,
        (_, false) => PYTHON,
    }
}

fn frame_table(tree: &Tree<'_>, function_of: &[usize], to: &mut dyn Write) -> io::Result<()> {
    let places = &tree.places;
    let all = |value| std::iter::repeat_n(value, places.len());
    write!(to, "\"frameTable\":{{\"length\":{},", places.len())?;
    // Addresses mean something together with libraries' symbols only.
    json::array(to, "address", all("-1"))?;
    to.write_all(b",")?;
    json::array(to, "category", places.iter().map(category))?;
    to.write_all(b",")?;
    json::array(to, "func", function_of)?;
    to.write_all(b",")?;
    json::array(to, "line", places.iter().map(|p| json::known(p.line)))?;
    for (name, value) in [
        ("inlineDepth", "0"),
        ("subcategory", "0"),
        ("nativeSymbol", "null"),
        ("innerWindowID", "0"),
        ("column", "null"),
    ] {
        to.write_all(b",")?;
        json::array(to, name, all(value))?;
    }
    to.write_all(b"},")
}

fn func_table(functions: &[Function], to: &mut dyn Write) -> io::Result<()> {
    let all = |value| std::iter::repeat_n(value, functions.len());
    let index = |of: Option<usize>, none: &str| of.map_or(none.to_owned(), |i| i.to_string());
    write!(to, "\"funcTable\":{{\"length\":{},", functions.len())?;
    json::array(to, "name", functions.iter().map(|f| f.name))?;
    to.write_all(b",")?;
    json::array(to, "resource", functions.iter().map(|f| index(f.resource, "-1")))?;
    to.write_all(b",")?;
    json::array(to, "fileName", functions.iter().map(|f| index(f.file, "null")))?;
    to.write_all(b",")?;
    json::array(to, "lineNumber", functions.iter().map(|f| json::known(f.line)))?;
    for (name, value) in [("isJS", "false"), ("relevantForJS", "false"), ("columnNumber", "null")] {
        to.write_all(b",")?;
        json::array(to, name, all(value))?;
    }
    to.write_all(b"},")
}

fn resource_table(resources: &[usize], to: &mut dyn Write) -> io::Result<()> {
    /// The front end's number for a library.
    const LIBRARY: &str = "1";
    let all = |value| std::iter::repeat_n(value, resources.len());
    write!(to, "\"resourceTable\":{{\"length\":{},", resources.len())?;
    json::array(to, "name", resources)?;
    for (name, value) in [("lib", "null"), ("host", "null"), ("type", LIBRARY)] {
        to.write_all(b",")?;
        json::array(to, name, all(value))?;
    }
    to.write_all(b"},")
}
