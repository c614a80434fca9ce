//! An image of a child that stands, without the crates above: /proc/PID/maps and /proc/PID/mem.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use strandline_image::{Image, Mapping, PageSet, Piece, Source, PAGE};

/// `image` without the pages that are all zero: they are in no piece, as if never copied.
#[allow(dead_code)]
pub fn sparse(image: &Image) -> Image {
    let mut pieces = Vec::new();
    for (start, bytes) in image.pieces() {
        let pages: Vec<&[u8]> = bytes.chunks(PAGE as usize).collect();
        let mut at = start;
        for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let bytes = run.concat();
            let end = at + bytes.len() as u64;
            if !is_zero(run[0]) {
                pieces.push(Piece { start: at, bytes: Box::new(bytes) });
            }
            at = end;
        }
    }
    Image::new(image.mappings().to_vec(), pieces, Vec::new(), Source::Fixture, None)
}

/// `bytes`: a page or less.
fn is_zero(bytes: &[u8]) -> bool {
    *bytes == [0; PAGE as usize][..bytes.len()]
}

/// A child that has said its piece on stdout and now waits for its stdin to end.
pub struct Waiting {
    child: Child,
    pub said: Vec<u8>,
}

impl Waiting {
    /// Starts `command`; it first writes the number of bytes that follow, 8 bytes.
    pub fn start(command: &mut Command) -> Waiting {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("child starts");
        let out = child.stdout.as_mut().expect("piped");
        let mut len = [0; 8];
        out.read_exact(&mut len).expect("child says how much it says");
        let mut said = vec![0; u64::from_le_bytes(len) as usize];
        out.read_exact(&mut said).expect("child says all");
        Waiting { child, said }
    }

    /// Everything it said, as words.
    pub fn words(&self) -> Vec<u64> {
        self.said.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect()
    }

    /// Its memory, while all of its threads sleep.
    pub fn image(&self) -> Image {
        let proc = format!("/proc/{}", self.child.id());
        std::thread::sleep(std::time::Duration::from_millis(20));
        let maps = std::fs::read_to_string(format!("{proc}/maps")).expect("maps");
        let mem = File::open(format!("{proc}/mem")).expect("mem");
        let mappings: Vec<Mapping> = maps.lines().map(mapping).collect();
        let mut pieces = Vec::new();
        for m in mappings.iter().filter(|m| m.read && m.write && !m.shared) {
            let mut bytes = vec![0; m.len() as usize];
            if mem.read_exact_at(&mut bytes, m.start).is_err() {
                // Stacks' guard pages are inside of the mapping (MADV_GUARD_INSTALL, glibc 2.42).
                for (page, at) in bytes.chunks_mut(PAGE as usize).zip((m.start..).step_by(4096)) {
                    let _ = mem.read_exact_at(page, at);
                }
            }
            pieces.push(Piece { start: m.start, bytes: Box::new(bytes) });
        }
        Image::new(mappings, pieces, Vec::new(), Source::Fixture, None)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mapping(line: &str) -> Mapping {
    let mut fields = line.split_ascii_whitespace();
    let mut field = || fields.next().unwrap_or_default();
    let (range, flags, _offset, _device, inode) = (field(), field(), field(), field(), field());
    let (start, end) = range.split_once('-').expect("a range");
    let hex = |text| u64::from_str_radix(text, 16).expect("hex");
    let (start, end) = (hex(start), hex(end));
    let flag = |at: usize, wanted: u8| flags.as_bytes().get(at) == Some(&wanted);
    Mapping {
        start,
        end,
        read: flag(0, b'r'),
        write: flag(1, b'w'),
        execute: flag(2, b'x'),
        shared: flag(3, b's'),
        inode: inode.parse().expect("an inode"),
        path: fields.collect::<Vec<_>>().join(" "),
        resident: PageSet::all(((end - start) / PAGE) as usize),
        ..Mapping::default()
    }
}
