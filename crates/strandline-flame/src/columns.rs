//! The figures as the page's script reads them: columns of LEB128 numbers.

/// Largest integer that the script's numbers hold exactly (2⁵³ − 1).
const LARGEST: u64 = (1 << 53) - 1;

/// Named columns, one after the other.
#[derive(Debug, Default)]
pub struct Columns {
    /// Name, number of values and bytes of each, in order.
    pub index: Vec<(String, usize, usize)>,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

impl Columns {
    /// Adds a column of numbers.
    pub fn numbers(&mut self, name: &str, values: impl IntoIterator<Item = u64>) {
        let start = self.bytes.len();
        let mut count = 0;
        for value in values {
            number(&mut self.bytes, value.min(LARGEST));
            count += 1;
        }
        self.index.push((name.to_owned(), count, self.bytes.len() - start));
    }

    /// Adds a column of numbers that hardly ever fall: each as its distance from the one before,
    /// zigzag.
    pub fn distances(&mut self, name: &str, values: impl IntoIterator<Item = u64>) {
        let mut last = 0;
        self.numbers(
            name,
            values.into_iter().map(move |value| {
                let value = value.min(LARGEST) as i64;
                let distance = value - last;
                last = value;
                ((distance << 1) ^ (distance >> 63)) as u64
            }),
        );
    }

    /// Adds texts: their lengths in bytes as one column, the texts themselves as another.
    pub fn texts(&mut self, name: &str, texts: &[&str]) {
        self.numbers(&format!("{name}.lengths"), texts.iter().map(|t| t.len() as u64));
        let start = self.bytes.len();
        for text in texts {
            self.bytes.extend_from_slice(text.as_bytes());
        }
        let bytes = self.bytes.len() - start;
        self.index.push((format!("{name}.bytes"), bytes, bytes));
    }
}

fn number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_many_bytes_as_they_need() {
        let mut columns = Columns::default();
        columns.numbers("n", [0, 127, 128, u64::MAX]);
        assert_eq!(columns.bytes[..4], [0, 127, 0x80, 1]);
        // What the script could not hold is cut to what it can: 53 bits.
        assert_eq!(columns.bytes[4..], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(columns.index, [("n".to_owned(), 4, 12)]);
    }

    #[test]
    fn distances_may_fall() {
        let mut columns = Columns::default();
        columns.distances("d", [5, 7, 6]);
        assert_eq!(columns.bytes, [10, 4, 1]);
    }
}
