//! Reads the data of a page as its script does.

use std::collections::HashMap;
use std::io::Read;

use base64::Engine;

pub struct Unpacked {
    pub header: serde_json::Value,
    columns: HashMap<String, (usize, Vec<u8>)>,
}

impl Unpacked {
    pub fn new(page: &str) -> Unpacked {
        let (_, rest) = page.split_once("id=\"data\">").expect("data");
        let (data, _) = rest.split_once("</script>").expect("end of data");
        let packed = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("gzip");
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let header: serde_json::Value =
            serde_json::from_slice(&bytes[4..4 + length]).expect("json");
        let mut at = 4 + length;
        let mut columns = HashMap::new();
        for column in header["columns"].as_array().expect("columns") {
            let [name, count, length] = [&column[0], &column[1], &column[2]];
            let length = length.as_u64().unwrap() as usize;
            let bytes = bytes[at..at + length].to_vec();
            at += length;
            let count = count.as_u64().unwrap() as usize;
            columns.insert(name.as_str().unwrap().to_owned(), (count, bytes));
        }
        assert_eq!(at, bytes.len());
        Unpacked { header, columns }
    }

    pub fn numbers(&self, name: &str) -> Vec<u64> {
        let (count, bytes) = &self.columns[name];
        let mut numbers = Vec::new();
        let (mut value, mut shift) = (0, 0);
        for byte in bytes {
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                numbers.push(value);
                (value, shift) = (0, 0);
            }
        }
        assert_eq!(numbers.len(), *count, "{name}");
        numbers
    }

    pub fn texts(&self) -> Vec<String> {
        let mut rest = &self.columns["text.bytes"].1[..];
        let mut texts = Vec::new();
        for length in self.numbers("text.lengths") {
            let (text, after) = rest.split_at(length as usize);
            texts.push(String::from_utf8(text.to_vec()).unwrap());
            rest = after;
        }
        texts
    }

    /// Path and thread of each entry, as texts.
    pub fn entries(&self) -> Vec<(String, String)> {
        let paths = self.paths();
        let threads = self.header["threads"].as_array().unwrap();
        let mut node = 0;
        let nodes = self.numbers("entry.node").into_iter().map(|distance| {
            node += (distance >> 1) as i64 ^ -((distance & 1) as i64);
            node as usize
        });
        let entries = nodes.zip(self.numbers("entry.thread"));
        entries
            .map(|(node, thread)| {
                let thread = &threads[thread as usize];
                let name = format!("{}|{}", thread["process"], thread["name"].as_str().unwrap());
                (paths[node].clone(), name)
            })
            .collect()
    }

    /// The frames from the outermost caller to each node.
    fn paths(&self) -> Vec<String> {
        let texts = self.texts();
        let [function, file, line, kind] =
            ["function", "file", "line", "kind"].map(|c| self.numbers(&format!("frame.{c}")));
        let name = |frame: usize| match (kind[frame], frame) {
            (2, 0) => "no code".to_owned(),
            (2, _) => "others".to_owned(),
            _ => {
                let text = |at: u64| &texts[at as usize];
                format!("{}|{}|{}", text(function[frame]), text(file[frame]), line[frame])
            }
        };
        let mut paths = vec![String::new()];
        let mut above: Vec<String> = Vec::new();
        for (up, frame) in self.numbers("node.up").into_iter().zip(self.numbers("node.frame")) {
            above.truncate(above.len() - up as usize);
            above.push(name(frame as usize));
            paths.push(above.join(" > "));
        }
        paths
    }
}
