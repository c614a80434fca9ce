//! Running an entry's instructions: which rules hold at an address (DWARF 5, 6.4.2 and 6.4.3).

use crate::entry::Entry;
use crate::reader::{Reader, Section};

/// Number of registers: the System V ABI's numbers for rax to r15, and the return address.
pub const REGISTERS: usize = 17;
/// Number of rbp.
pub const RBP: usize = 6;
/// Number of rsp.
pub const RSP: usize = 7;
/// Number of the return address.
pub const RETURN: usize = 16;
/// How often `DW_CFA_remember_state` may be nested: compilers need 1.
const REMEMBERED: usize = 4;

/// How the canonical frame address is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cfa<'a> {
    /// Register plus offset.
    Register(usize, i64),
    /// Value of an expression.
    Expression(&'a [u8]),
}

/// Where the caller's value of a register is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rule<'a> {
    /// Nothing was said: the callee left it alone, or nobody wants it.
    #[default]
    Unspecified,
    /// It is lost; as a rule for the return address: there is no caller.
    Undefined,
    /// Unchanged.
    Same,
    /// Stored at the frame address plus an offset.
    Offset(i64),
    /// The frame address plus an offset.
    ValueOffset(i64),
    /// In another register.
    Register(usize),
    /// Stored where an expression says, which starts with the frame address on its stack.
    Expression(&'a [u8]),
    /// What an expression says, which starts with the frame address on its stack.
    ValueExpression(&'a [u8]),
}

/// The rules at one address.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The frame address.
    pub cfa: Cfa<'a>,
    /// The registers.
    pub rules: [Rule<'a>; REGISTERS],
    /// The frame is one that the kernel made for a signal.
    pub signal: bool,
}

impl<'a> Row<'a> {
    /// The rule of a register.
    pub fn rule(&self, register: usize) -> Rule<'a> {
        self.rules.get(register).copied().unwrap_or_default()
    }

    /// The rules at `pc`, which `entry` covers; `None` if the instructions make no sense.
    pub fn at(entry: &Entry<'a>, pc: u64) -> Option<Row<'a>> {
        if entry.return_column != RETURN as u64 {
            return None;
        }
        let empty = Row {
            cfa: Cfa::Register(RSP, 8),
            rules: [Rule::Unspecified; REGISTERS],
            signal: entry.signal,
        };
        let mut machine = Machine {
            entry,
            location: entry.start,
            row: empty,
            initial: empty,
            saved: [empty; REMEMBERED],
            depth: 0,
        };
        machine.run(entry.initial, u64::MAX)?;
        machine.initial = machine.row;
        machine.location = entry.start;
        machine.run(entry.program, pc)?;
        Some(machine.row)
    }
}

/// Runs the instructions.
struct Machine<'e, 'a> {
    entry: &'e Entry<'a>,
    location: u64,
    row: Row<'a>,
    /// What `DW_CFA_restore` goes back to.
    initial: Row<'a>,
    saved: [Row<'a>; REMEMBERED],
    depth: usize,
}

impl<'a> Machine<'_, 'a> {
    /// Runs `program` up to the last row that starts at or before `pc`.
    fn run(&mut self, program: Section<'a>, pc: u64) -> Option<()> {
        let mut reader = Reader::new(program);
        while !reader.is_empty() {
            let byte = reader.u8()?;
            let low = u64::from(byte & 0x3f);
            let advanced = match byte {
                0x40..=0x7f => Some(low),
                0x02 => Some(u64::from(reader.u8()?)),
                0x03 => Some(u64::from(reader.u16()?)),
                0x04 => Some(u64::from(reader.u32()?)),
                _ => None,
            };
            if let Some(delta) = advanced {
                let bytes = delta.wrapping_mul(self.entry.code_factor);
                self.location = self.location.wrapping_add(bytes);
            } else if byte == 0x01 {
                self.location = reader.pointer(self.entry.encoding, 0)?;
            } else {
                self.instruction(byte, low, &mut reader)?;
                continue;
            }
            if self.location > pc {
                break;
            }
        }
        Some(())
    }

    fn instruction(&mut self, byte: u8, low: u64, r: &mut Reader<'a>) -> Option<()> {
        match byte {
            // DW_CFA_offset, DW_CFA_restore
            0x80..=0xbf => {
                let offset = self.unsigned(r)?;
                self.set(low, Rule::Offset(offset));
            }
            0xc0..=0xff => self.restore(low),
            // DW_CFA_nop
            0x00 => {}
            // DW_CFA_offset_extended, DW_CFA_restore_extended, DW_CFA_undefined,
            // DW_CFA_same_value, DW_CFA_register
            0x05 => {
                let register = r.uleb()?;
                let offset = self.unsigned(r)?;
                self.set(register, Rule::Offset(offset));
            }
            0x06 => {
                let register = r.uleb()?;
                self.restore(register);
            }
            0x07 => self.set(r.uleb()?, Rule::Undefined),
            0x08 => self.set(r.uleb()?, Rule::Same),
            0x09 => {
                let register = r.uleb()?;
                self.set(register, Rule::Register(usize::try_from(r.uleb()?).ok()?));
            }
            // DW_CFA_remember_state, DW_CFA_restore_state
            0x0a => {
                *self.saved.get_mut(self.depth)? = self.row;
                self.depth += 1;
            }
            0x0b => {
                self.depth = self.depth.checked_sub(1)?;
                self.row = *self.saved.get(self.depth)?;
            }
            0x0c..=0x0f | 0x12 | 0x13 => self.frame_address(byte, r)?,
            // DW_CFA_expression, DW_CFA_offset_extended_sf
            0x10 => {
                let register = r.uleb()?;
                self.set(register, Rule::Expression(block(r)?));
            }
            0x11 => {
                let register = r.uleb()?;
                let offset = self.signed(r)?;
                self.set(register, Rule::Offset(offset));
            }
            // DW_CFA_val_offset, DW_CFA_val_offset_sf, DW_CFA_val_expression
            0x14 => {
                let register = r.uleb()?;
                let offset = self.unsigned(r)?;
                self.set(register, Rule::ValueOffset(offset));
            }
            0x15 => {
                let register = r.uleb()?;
                let offset = self.signed(r)?;
                self.set(register, Rule::ValueOffset(offset));
            }
            0x16 => {
                let register = r.uleb()?;
                self.set(register, Rule::ValueExpression(block(r)?));
            }
            // DW_CFA_GNU_args_size: of interest to who runs landing pads
            0x2e => _ = r.uleb()?,
            // DW_CFA_GNU_negative_offset_extended
            0x2f => {
                let register = r.uleb()?;
                let offset = self.unsigned(r)?;
                self.set(register, Rule::Offset(offset.wrapping_neg()));
            }
            _ => return None,
        }
        Some(())
    }

    /// `DW_CFA_def_cfa` and its family.
    fn frame_address(&mut self, byte: u8, r: &mut Reader<'a>) -> Option<()> {
        let (register, offset) = match self.row.cfa {
            Cfa::Register(register, offset) => (Some(register), offset),
            Cfa::Expression(_) => (None, 0),
        };
        self.row.cfa = match byte {
            0x0c => Cfa::Register(usize::try_from(r.uleb()?).ok()?, r.uleb()? as i64),
            0x0d => Cfa::Register(usize::try_from(r.uleb()?).ok()?, offset),
            0x0e => Cfa::Register(register?, r.uleb()? as i64),
            0x12 => {
                let register = usize::try_from(r.uleb()?).ok()?;
                Cfa::Register(register, self.signed(r)?)
            }
            0x13 => Cfa::Register(register?, self.signed(r)?),
            _ => Cfa::Expression(block(r)?),
        };
        Some(())
    }

    fn unsigned(&self, r: &mut Reader<'a>) -> Option<i64> {
        Some((r.uleb()? as i64).wrapping_mul(self.entry.data_factor))
    }

    fn signed(&self, r: &mut Reader<'a>) -> Option<i64> {
        Some(r.sleb()?.wrapping_mul(self.entry.data_factor))
    }

    /// Sets a rule; rules of other registers (vector registers) are of no interest.
    fn set(&mut self, register: u64, rule: Rule<'a>) {
        if let Some(slot) = self.row.rules.get_mut(register as usize) {
            *slot = rule;
        }
    }

    fn restore(&mut self, register: u64) {
        let rule = self.initial.rule(register as usize);
        self.set(register, rule);
    }
}

/// Bytes of an expression.
fn block<'a>(r: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = r.uleb()?;
    r.take(length).map(|s| s.bytes)
}
