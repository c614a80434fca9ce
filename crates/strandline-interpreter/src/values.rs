//! Reading values: text and dicts.

use strandline_cpython::{Dict, DictIndex, Layout, Str};
use strandline_image::Image;

/// Longest text that is read, characters.
const LONGEST: u64 = 4096;
/// Most entries of a dict that are read.
const MOST_ENTRIES: u64 = 1 << 22;

/// The text at `object`, a `str` (2.7: also `unicode`); characters that aren't Unicode are
/// replaced.
pub fn text(image: &Image, l: &Layout, object: u64) -> Option<String> {
    if l.names_are_bytes {
        let len = image.word(object.checked_add(l.bytes.len as u64)?)?;
        let mut bytes = vec![0; usize::try_from(len).ok().filter(|_| len <= LONGEST)?];
        return image
            .read(object + l.bytes.data as u64, &mut bytes)
            .then(|| String::from_utf8_lossy(&bytes).into_owned());
    }
    let Str::Flexible(s) = &l.str_ else { return None };
    let len = image.word(object.checked_add(s.length as u64)?)?;
    let state = image.half(object.checked_add(s.state as u64)?)?;
    let kind = state >> s.kind_shift & s.kind_mask as u32;
    if len > LONGEST || !matches!(kind, 1 | 2 | 4) {
        return None;
    }
    let compact = state >> s.compact_bit & 1 != 0;
    let ascii = state >> s.ascii_bit & 1 != 0;
    let data = match (compact, ascii) {
        (true, true) => object + s.ascii_data as u64,
        (true, false) => object + s.compact_data as u64,
        _ => image.word(object + s.data_pointer as u64)?,
    };
    let mut bytes = vec![0; (len * kind as u64) as usize];
    if !image.read(data, &mut bytes) {
        return None;
    }
    let code_point = |unit: &[u8]| {
        let value = unit.iter().rev().fold(0u32, |value, &b| value << 8 | b as u32);
        char::from_u32(value).unwrap_or('\u{fffd}')
    };
    Some(bytes.chunks_exact(kind as usize).map(code_point).collect())
}

/// The entries of a dict: addresses of key and value. Empty if it can't be read.
pub fn entries(image: &Image, l: &Layout, dict: u64) -> Vec<(u64, u64)> {
    read_entries(image, l, dict).unwrap_or_default()
}

/// Where a dict's entries are.
struct Table {
    /// The first entry.
    start: u64,
    count: u64,
    /// Bytes of an entry.
    step: u64,
    /// Offset of the key in it; the value follows.
    key: u64,
    /// Values that stand elsewhere, by the number of the entry.
    values: Option<u64>,
}

fn table(image: &Image, l: &Layout, dict: u64) -> Option<Table> {
    let member = |at: u64, offset: u16| image.word(at.checked_add(offset as u64)?);
    match l.dict {
        Dict::Slots { mask, table } => {
            let count = member(dict, mask)?.checked_add(1)?;
            Some(Table { start: member(dict, table)?, count, step: 24, key: 8, values: None })
        }
        Dict::Keys { keys, values, first_value, .. } => {
            let table = keys_table(image, l, member(dict, keys)?)?;
            let values = member(dict, values)?;
            let values = (values != 0).then(|| values.wrapping_add(first_value as u64));
            Some(Table { values, ..table })
        }
    }
}

/// The table in the `PyDictKeysObject` at `keys`.
fn keys_table(image: &Image, l: &Layout, keys: u64) -> Option<Table> {
    let member = |offset: u16| image.word(keys.checked_add(offset as u64)?);
    let Dict::Keys { entries, indices, index, .. } = l.dict else { return None };
    let count = member(entries)?;
    let (index_bytes, wide) = match index {
        DictIndex::Size(offset) => {
            let size = member(offset)?;
            let width = match size {
                0..=0xff => 1,
                0x100..=0xffff => 2,
                0x1_0000..=0xffff_ffff => 4,
                _ => 8,
            };
            (size.checked_mul(width)?, true)
        }
        DictIndex::Log2 { bytes, kind } => {
            let log2 = image.byte(keys.checked_add(bytes as u64)?)?;
            let wide = image.byte(keys.checked_add(kind as u64)?)? == 0;
            (1u64.checked_shl(log2 as u32).filter(|_| log2 < 40)?, wide)
        }
    };
    let start = keys.checked_add(indices as u64)?.checked_add(index_bytes)?;
    let (step, key) = if wide { (24, 8) } else { (16, 0) };
    Some(Table { start, count, step, key, values: None })
}

fn read_entries(image: &Image, l: &Layout, dict: u64) -> Option<Vec<(u64, u64)>> {
    let t = table(image, l, dict)?;
    if t.count > MOST_ENTRIES {
        return None;
    }
    let mut found = Vec::new();
    for i in 0..t.count {
        let at = t.start.checked_add(i * t.step)?.checked_add(t.key)?;
        let key = image.word(at)?;
        let value = match t.values {
            Some(values) => image.word(values.checked_add(8 * i)?)?,
            None => image.word(at.checked_add(8)?)?,
        };
        if key != 0 && value != 0 {
            found.push((key, value));
        }
    }
    Some(found)
}

/// The value under the text `key` in a dict.
pub fn get(image: &Image, l: &Layout, dict: u64, key: &str) -> Option<u64> {
    let is_it = |&(k, _): &(u64, u64)| text(image, l, k).is_some_and(|text| text == key);
    entries(image, l, dict).into_iter().find(is_it).map(|(_, value)| value)
}

impl Table {
    fn key(&self, image: &Image, number: u64) -> Option<u64> {
        let at = self.start.checked_add(number.checked_mul(self.step)?)?.checked_add(self.key)?;
        image.word(at).filter(|&key| number < self.count && key != 0)
    }
}

/// The key of a dict's entry `number`, in the order of insertion.
pub fn key(image: &Image, l: &Layout, dict: u64, number: u64) -> Option<u64> {
    table(image, l, dict)?.key(image, number)
}

/// The same of a `PyDictKeysObject`.
pub fn key_in(image: &Image, l: &Layout, keys: u64, number: u64) -> Option<u64> {
    keys_table(image, l, keys)?.key(image, number)
}
