//! Any bytes behind a valid header: the reader must return, and must not panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline_capture::{layout, read};

fuzz_target!(|data: &[u8]| {
    // Most of the header is patterns: spend the fuzzer's bytes on the region behind it.
    let mut bytes = vec![0u8; layout::HEADER_BYTES + data.len()];
    bytes[..8].copy_from_slice(&layout::MAGIC.to_le_bytes());
    bytes[8..12].copy_from_slice(&layout::VERSION.to_le_bytes());
    bytes[16..20].copy_from_slice(&2u32.to_le_bytes());
    bytes[layout::HEADER_BYTES..].copy_from_slice(data);
    let _ = read::read(&bytes[..]);
    // With the call paths, where the options say that there are some.
    let _ = read::regions(&bytes[..]);
});
