//! Frames of functions: those that run, found from the threads, and those in generators; which
//! function and line each is at, and the names of its slots.

use strandline_cpython::{Bytecode, CurrentFrame, Cursor, Layout, SlotNames};
use strandline_image::Image;

use crate::modules::words;
use crate::{values, Types};

/// Thread states of an interpreter that are looked at.
const MOST_THREADS: usize = 1 << 14;
/// Frames of a thread that are followed.
const MOST_FRAMES: usize = 1 << 17;
/// Slots of a frame that are believed.
const MOST_SLOTS: u64 = 1 << 16;
/// Bytes of a line table that are read.
const LONGEST_TABLE: u64 = 1 << 24;

/// A frame: a `PyFrameObject` up to 3.10, a `_PyInterpreterFrame` later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its address.
    pub address: u64,
    /// Address of its code object.
    pub code: u64,
    /// Address of its first slot.
    pub slots: u64,
    /// Slots that have names: local variables, cells.
    pub named: u64,
    /// Slots of the value stack, which follow. Those that aren't in use may hold anything.
    pub unnamed: u64,
}

/// What reads frames of one interpreter.
pub struct Frames<'a> {
    /// The memory.
    pub image: &'a Image,
    /// Where the interpreter keeps what.
    pub layout: &'a Layout,
    /// Its types.
    pub types: &'a Types,
}

impl Frame {
    /// End of the last slot.
    pub fn end(&self) -> u64 {
        self.slots + 8 * (self.named + self.unnamed)
    }
}

impl Frames<'_> {
    fn member(&self, at: u64, offset: u16) -> Option<u64> {
        self.image.word(at.checked_add(offset as u64)?)
    }

    fn int(&self, at: u64, offset: u16) -> Option<i32> {
        Some(self.image.half(at.checked_add(offset as u64)?)? as i32)
    }

    fn is_code(&self, object: u64) -> bool {
        let kind = self.member(object, self.layout.object.type_);
        let id = kind.and_then(|kind| self.types.look_up(self.image, kind));
        id.and_then(|id| self.types.name(id)).is_some_and(|name| name == "code")
    }

    fn tuple_len(&self, tuple: u64) -> Option<u64> {
        self.member(tuple, self.layout.object.tuple_len).filter(|&len| len <= MOST_SLOTS)
    }

    fn tuples(&self, code: u64) -> Option<Vec<u64>> {
        let offsets = match self.layout.code.slot_names {
            SlotNames::Three { variables, cells, free } => vec![variables, cells, free],
            SlotNames::One(all) => vec![all],
        };
        offsets.into_iter().map(|offset| self.member(code, offset)).collect()
    }

    /// The frame at `address`, if its code is one.
    pub fn at(&self, address: u64) -> Option<Frame> {
        let frame = &self.layout.frame;
        let (code, slots) = match (&frame.interpreter, frame.object.f_code) {
            (Some(f), _) => {
                let code = f.executable_pointer(self.member(address, f.executable)?);
                (code, f.slots())
            }
            (None, Some(f_code)) => (self.member(address, f_code)?, frame.object.slots()),
            (None, None) => return None,
        };
        if !self.is_code(code) {
            return None;
        }
        let lens = self.tuples(code)?.into_iter().map(|tuple| self.tuple_len(tuple));
        let named = lens.sum::<Option<u64>>()?;
        let unnamed = self.int(code, self.layout.code.stack_size)?;
        let unnamed = u64::try_from(unnamed).ok().filter(|&n| n <= MOST_SLOTS)?;
        let slots = address.checked_add(slots as u64)?;
        Some(Frame { address, code, slots, named, unnamed })
    }

    /// The frame of the generator or coroutine at `object`; 3.11 and later.
    pub fn of_generator(&self, object: u64) -> Option<Frame> {
        self.at(object.checked_add(self.layout.frame.in_generator? as u64)?)
    }

    /// Frames that run, of all threads whose thread state is in `memory`: what C code and the
    /// interpreter itself have (address, bytes).
    ///
    /// A thread state is told by the id of its thread, `pthread_self()`, which is the base of the
    /// thread's local storage (glibc), and by being in the list of its interpreter.
    pub fn running<'m>(&self, memory: impl Iterator<Item = (u64, &'m [u8])>) -> Vec<Frame> {
        let threads: Vec<u64> = self.image.threads().iter().filter_map(|t| t.tls).collect();
        let mut found: Vec<Frame> = Vec::new();
        if threads.is_empty() {
            return found;
        }
        let mut states: Vec<u64> = Vec::new();
        for (start, bytes) in memory {
            for (at, word) in words(start, bytes).filter(|(_, word)| threads.contains(word)) {
                let state = at.wrapping_sub(self.layout.tstate.thread_id as u64);
                if !states.contains(&state) && self.is_thread_state(state, word) {
                    states.push(state);
                    self.follow(state, &mut found);
                }
            }
        }
        found.sort_unstable_by_key(|f| f.address);
        found.dedup_by_key(|f| f.address);
        found
    }

    fn is_thread_state(&self, state: u64, thread: u64) -> bool {
        let t = &self.layout.tstate;
        let Some(interpreter) = self.member(state, t.interp) else { return false };
        let head = interpreter.checked_add(self.layout.interp.threads_head as u64);
        let mut next = head.and_then(|head| self.image.word(head));
        for _ in 0..MOST_THREADS {
            match next {
                Some(at) if at == state => {
                    return self.member(state, t.thread_id) == Some(thread);
                }
                Some(at) if at != 0 && self.member(at, t.interp) == Some(interpreter) => {
                    next = self.member(at, t.next);
                }
                _ => return false,
            }
        }
        false
    }

    /// The frames of a thread, the innermost first.
    fn follow(&self, state: u64, found: &mut Vec<Frame>) {
        let first = match self.layout.tstate.current_frame {
            CurrentFrame::Object { frame } => self.member(state, frame),
            CurrentFrame::Direct { current_frame } => self.member(state, current_frame),
            CurrentFrame::CFrame { cframe, current_frame } => {
                self.member(state, cframe).and_then(|c| self.member(c, current_frame))
            }
        };
        let previous = match &self.layout.frame.interpreter {
            Some(f) => f.previous,
            None => self.layout.frame.object.f_back,
        };
        let mut at = first.filter(|&at| at != 0);
        for _ in 0..MOST_FRAMES {
            let Some(address) = at else { return };
            // Some have no code of Python: calls from C.
            found.extend(self.at(address));
            at = self.member(address, previous).filter(|&at| at != 0);
        }
    }

    /// `name() at file:line`: the function, and the line it is at.
    pub fn function(&self, frame: &Frame) -> String {
        let l = &self.layout.code;
        let text =
            |offset: u16| values::text(self.image, self.layout, self.member(frame.code, offset)?);
        let name = l.qualname.and_then(text).or_else(|| text(l.name));
        let name = match name.as_deref() {
            Some("<module>") => "a module's code".to_owned(),
            Some(name) => format!("{name}()"),
            None => "a function".to_owned(),
        };
        match (text(l.filename), self.line(frame)) {
            (Some(file), Some(line)) => format!("{name} at {file}:{line}"),
            (Some(file), None) => format!("{name} in {file}"),
            _ => name,
        }
    }

    fn line(&self, frame: &Frame) -> Option<i32> {
        let l = &self.layout.code;
        let offset = match (&self.layout.frame.interpreter, l.code) {
            (Some(f), Bytecode::Inline(code)) => {
                let at = self.member(frame.address, f.instr_ptr)?;
                i32::try_from(at.wrapping_sub(frame.code + code as u64) as i64).ok()?
            }
            _ => {
                let last = self.int(frame.address, self.layout.frame.object.f_lasti?)?;
                last.checked_mul(self.layout.frame.object.lasti_unit as i32)?
            }
        };
        let first = self.int(frame.code, l.firstlineno)?;
        let table = self.member(frame.code, l.linetable)?;
        let len = self.member(table, self.layout.bytes.len).filter(|&len| len < LONGEST_TABLE)?;
        let mut bytes = vec![0; len as usize];
        if !self.image.read(table.checked_add(self.layout.bytes.data as u64)?, &mut bytes) {
            return None;
        }
        let line = Cursor::new(first).line_at(l.line_table, first, &bytes, offset);
        (line > 0).then_some(line)
    }

    /// Name of the variable whose slot is at `address`; `None` for the value stack.
    pub fn variable(&self, frame: &Frame, address: u64) -> Option<String> {
        let mut number = address.checked_sub(frame.slots)? / 8;
        for tuple in self.tuples(frame.code)? {
            let len = self.tuple_len(tuple)?;
            if number < len {
                let at = tuple.checked_add(self.layout.object.tuple_items as u64 + 8 * number)?;
                return values::text(self.image, self.layout, self.image.word(at)?);
            }
            number -= len;
        }
        None
    }
}
