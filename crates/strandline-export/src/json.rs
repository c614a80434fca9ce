//! JSON as it is made, without a tree of values in between.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes `"name":[…]`, each item as it displays itself: numbers, or JSON already.
pub fn array<T: Display>(
    to: &mut dyn Write,
    name: &str,
    items: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    write!(to, "\"{name}\":[")?;
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            to.write_all(b",")?;
        }
        write!(to, "{item}")?;
    }
    to.write_all(b"]")
}

/// A text in quotes.
pub fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A number, or null for 0, where 0 stands for "unknown".
pub fn known(number: u32) -> String {
    match number {
        0 => "null".into(),
        number => number.to_string(),
    }
}
