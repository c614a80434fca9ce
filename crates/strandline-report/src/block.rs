//! Where a function's source ends: the rule of Python's `inspect.getblock`.
//!
//! The last line that has code is often not the last line of the source: a closing bracket, the
//! rest of a long string or a trailing comment follow. This reads just enough of Python's
//! grammar, logical lines and their indentation, to find the end; it doesn't parse.

/// Length, in lines, of the block that starts with the first of `lines`; at least 1 unless
/// there are no lines. For a lambda, that is the statement it stands in.
pub(crate) fn length(lines: &[String], lambda: bool) -> usize {
    let mut scan = Scan { lines, next: 0 };
    let mut header: Option<usize> = None;
    let mut body: Option<usize> = None;
    let mut end = lines.len().min(1);
    while let Some(l) = scan.logical() {
        match (header, l.kind) {
            (_, Kind::Blank) => continue,
            (_, Kind::Comment) => {
                // A comment belongs to the body if it is indented like the body.
                if body.is_some_and(|b| l.indent >= b) {
                    end = l.end;
                }
                continue;
            }
            (None, Kind::Decorator) => {}
            (None, _) => header = Some(l.indent),
            (Some(h), _) if l.indent > h => {
                body.get_or_insert(l.indent);
            }
            (Some(_), _) => break,
        }
        end = l.end;
        if lambda {
            break;
        }
    }
    end
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank,
    Comment,
    Decorator,
    Code,
}

struct Logical {
    kind: Kind,
    /// Columns in front of the first character; a tab goes to the next multiple of 8.
    indent: usize,
    /// Number of lines up to and including its last.
    end: usize,
}

struct Scan<'a> {
    lines: &'a [String],
    next: usize,
}

impl Scan<'_> {
    fn logical(&mut self) -> Option<Logical> {
        let first = self.lines.get(self.next)?;
        let indent = indentation(first);
        let text = first.trim_start();
        let kind = match text.chars().next() {
            None => Kind::Blank,
            Some('#') => Kind::Comment,
            Some('@') => Kind::Decorator,
            Some(_) => Kind::Code,
        };
        let mut state = State::default();
        while let Some(line) = self.lines.get(self.next) {
            self.next += 1;
            if !state.continues_after(line) {
                break;
            }
        }
        Some(Logical { kind, indent, end: self.next })
    }
}

fn indentation(line: &str) -> usize {
    let mut column = 0;
    for c in line.chars() {
        match c {
            ' ' => column += 1,
            '\t' => column = (column / 8 + 1) * 8,
            '\x0c' => column = 0,
            _ => break,
        }
    }
    column
}

#[derive(Default)]
struct State {
    brackets: usize,
    /// Quote character of the triple-quoted string that is open.
    triple: Option<u8>,
    /// Quote character of the ordinary string that a backslash carries over to the next line.
    single: Option<u8>,
}

impl State {
    /// Reads one physical line; true if the logical line goes on.
    fn continues_after(&mut self, line: &str) -> bool {
        let bytes = line.as_bytes();
        let mut i = 0;
        let mut escaped = false;
        while let Some(b) = bytes.get(i).copied() {
            let is_triple = |q: u8| bytes.get(i..i + 3) == Some(&[q, q, q][..]);
            if escaped {
                escaped = false;
            } else if b == b'\\' {
                escaped = true;
            } else if let Some(q) = self.triple {
                if is_triple(q) {
                    self.triple = None;
                    i += 2;
                }
            } else if let Some(q) = self.single {
                if b == q {
                    self.single = None;
                }
            } else {
                match b {
                    b'#' => break,
                    b'"' | b'\'' if is_triple(b) => {
                        self.triple = Some(b);
                        i += 2;
                    }
                    b'"' | b'\'' => self.single = Some(b),
                    b'(' | b'[' | b'{' => self.brackets += 1,
                    b')' | b']' | b'}' => self.brackets = self.brackets.saturating_sub(1),
                    _ => {}
                }
            }
            i += 1;
        }
        if !escaped {
            // An ordinary string ends with its line unless a backslash carries it on.
            self.single = None;
        }
        escaped || self.brackets > 0 || self.triple.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> usize {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        length(&lines, false)
    }

    #[test]
    fn plain_function() {
        assert_eq!(of("def f():\n    a\n\n    b\n\nc\n"), 4);
        assert_eq!(of("def f(): return 1\nx = 2\n"), 1);
        assert_eq!(of(""), 0);
    }

    #[test]
    fn decorators_and_long_headers() {
        assert_eq!(of("@a(\n  1)\n@b\nasync def f(x,\ny):\n  return [\n1\n]\n\nz\n"), 8);
    }

    #[test]
    fn strings_and_continuations() {
        assert_eq!(of("def f():\n    s = '''\nx = (\n'''\n    return s\ny\n"), 5);
        assert_eq!(of("def f():\n    a = 1 + \\\n2\ny\n"), 3);
        assert_eq!(of("def f():\n    a = 'it\\'s ('\n    b = \"#(\"  # (\ny\n"), 3);
        assert_eq!(of("def f():\n    a = 'x \\\n  y'\n    b\ny\n"), 4);
    }

    #[test]
    fn comments_belong_where_they_are_indented() {
        assert_eq!(of("def f():\n    a\n    # end\n# not mine\nb\n"), 3);
        assert_eq!(of("def f():\n# odd\n    a\nb\n"), 3);
    }

    #[test]
    fn nested_and_indented() {
        assert_eq!(
            of("    def f():\n        def g():\n            pass\n        return g\n    x\n"),
            4
        );
        assert_eq!(of("\tdef f():\n\t\ta\n\tb\n"), 2);
    }

    #[test]
    fn lambdas() {
        let lines: Vec<String> = "f = (lambda:\n  1)\ng\n".lines().map(str::to_owned).collect();
        assert_eq!(length(&lines, true), 2);
    }
}
