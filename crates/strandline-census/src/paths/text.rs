//! Paths in Python's own words: names, keys and indices for the steps that the search has found. It
//! searches for nothing itself.

use strandline_interpreter::{values, Block, TypeId};

use super::{Path, Paths, Root, Thing};

impl Paths<'_> {
    /// The path in Python's own words, up to its end.
    pub fn text(&self, path: &Path) -> String {
        self.text_to(path, path.steps.len().saturating_sub(1))
    }

    /// The path in Python's own words, up to its step `last`.
    pub fn text_to(&self, path: &Path, last: usize) -> String {
        let root = path.root;
        let path = path.steps.get(..=last).unwrap_or(&path.steps);
        let Some(&(end, _)) = path.last() else { return String::new() };
        let mut text = match root {
            Some(Root::Running(slot)) => self.functions.text(slot),
            Some(Root::Stack | Root::Frame) => "a running function".to_owned(),
            Some(Root::Static) => "the interpreter".to_owned(),
            Some(Root::Module) | None => String::new(),
        };
        let is_vague = !matches!(root, Some(Root::Running(slot)) if slot.is_variable);
        // Names of a module's or an instance's dict are attributes.
        let mut attributes = false;
        for (i, &(thing, offset)) in path.iter().enumerate() {
            let Some(place) = self.place(thing) else { continue };
            match place.block {
                Block::Object(id) => {
                    let name = self.names.of(id);
                    if i == 0 && name == "module" {
                        text = self.names.module(thing + self.names.front(id));
                        attributes = true;
                        continue;
                    }
                    if let Some(variable) = self.variable(id, thing, offset) {
                        // The frame's own thread says less than the frame.
                        text = if i == 0 { variable } else { format!("{text} → {variable}") };
                        attributes = false;
                        continue;
                    }
                    let holds_items = matches!(name.as_str(), "dict" | "list" | "set" | "deque");
                    let inline = name == "dict" && !self.is_buffer(path.get(i + 1));
                    if thing == end {
                        text.push_str(&format!(" → {name}"));
                    } else if let (true, Some(at)) = (inline, offset) {
                        // A small dict of 2.7 has its table in itself.
                        let key =
                            at.checked_sub(8).and_then(|at| self.search.image.word(thing + at));
                        text.push_str(&self.key_step(id, key, attributes));
                    } else if name == "tuple" {
                        let index = self.names.tuple_index(id, offset.unwrap_or(0));
                        text.push_str(&format!("[{index}]"));
                    } else if !holds_items || text.is_empty() || i == 0 && is_vague {
                        text.push_str(&format!(" → {name}"));
                    }
                    // What it holds: an attribute that has a name, or the dict of them.
                    let plain = !holds_items && name != "tuple" && thing != end;
                    let held = offset.filter(|_| plain);
                    let attribute = held.and_then(|at| self.names.attribute_in(id, at));
                    if let Some(attribute) = &attribute {
                        text.push_str(&format!(".{attribute}"));
                    }
                    attributes = match held {
                        Some(at) => attribute.is_none() && self.names.is_dict_of_attributes(id, at),
                        None => attributes && name == "dict" && !inline,
                    };
                }
                Block::Owned(id) if thing == end => {
                    let last = format!(" → {}", self.names.of(id));
                    if !text.ends_with(&last) {
                        text.push_str(&last);
                    }
                }
                Block::Owned(id) => {
                    let holder = i.checked_sub(1).and_then(|i| path.get(i).copied());
                    let step =
                        offset.map(|at| self.buffer_step(id, holder, (thing, at), attributes));
                    text.push_str(&step.unwrap_or_default());
                    attributes = false;
                }
                _ => text.push_str(" → C"),
            }
        }
        text.trim_start_matches(" → ").to_owned()
    }

    /// The variable that stands at `offset` of a frame, generator or coroutine.
    fn variable(&self, id: TypeId, thing: Thing, offset: Option<u64>) -> Option<String> {
        let name = self.names.of(id);
        self.functions.variable(&name, thing + self.names.front(id), thing + offset?)
    }

    /// How the item at `at` (buffer, offset) is written; `holder`: who points to the buffer, and
    /// at which offset of its own.
    fn buffer_step(
        &self,
        owner: TypeId,
        holder: Option<(Thing, Option<u64>)>,
        at: (Thing, u64),
        attributes: bool,
    ) -> String {
        // The type that the buffer was given to may be another one's that points to it as well:
        // who is on the path counts.
        let on_path = holder.and_then(|(thing, _)| self.place(thing)).map(|p| p.block);
        let owner = match on_path {
            Some(Block::Object(id)) => id,
            _ => owner,
        };
        if self.names.of(owner) == "list" {
            return format!("[{}]", at.1 / 8);
        }
        if let Some((object, Some(pointer))) = holder {
            if let Some(name) = self.names.attribute_at(owner, (object, pointer), at) {
                return format!(".{name}");
            }
        }
        let key = holder.and_then(|(dict, pointer)| {
            self.names.key_of(owner, dict, pointer?.checked_sub(self.names.front(owner))?, at)
        });
        self.key_step(owner, key, attributes)
    }

    fn is_buffer(&self, step: Option<&(Thing, Option<u64>)>) -> bool {
        let block = step.and_then(|&(thing, _)| self.place(thing)).map(|p| p.block);
        matches!(block, Some(Block::Owned(_)))
    }

    /// How the item under `key` of something of type `owner` is written.
    fn key_step(&self, owner: TypeId, key: Option<u64>, attributes: bool) -> String {
        let name = self.names.of(owner);
        let text = key.and_then(|key| {
            let p = self.names.python_of(owner)?;
            let text = values::text(self.search.image, &p.interpreter.layout, key);
            text.filter(|_| self.names.is_text(key))
        });
        match text {
            Some(text) if attributes => format!(".{text}"),
            Some(text) => format!("[{text:?}]"),
            None if name == "dict" => match key.and_then(|key| self.names.number(key)) {
                Some(number) => format!("[{number}]"),
                None => "[…]".to_owned(),
            },
            None => String::new(),
        }
    }
}
