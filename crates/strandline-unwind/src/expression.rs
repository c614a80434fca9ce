//! Values of DWARF expressions as call frame information has them (DWARF 5, 2.5 and 6.4.2).

use crate::reader::{Reader, Section};

/// Depth of the stack: real expressions need 3.
const DEPTH: usize = 16;
/// Operations that are executed at most: `DW_OP_skip` may go backwards.
const STEPS: usize = 256;

/// Registers and memory that an expression may ask for.
pub trait Context {
    /// Value of a register by its number in the System V ABI.
    fn register(&self, number: usize) -> Option<u64>;
    /// The 8 bytes at an address.
    fn memory(&self, address: u64) -> Option<u64>;
}

/// Evaluates `code`, whose stack at first holds `first` if that is given.
pub fn evaluate(code: &[u8], first: Option<u64>, context: &dyn Context) -> Option<u64> {
    let mut stack = Stack { values: [0; DEPTH], depth: 0 };
    if let Some(value) = first {
        stack.push(value)?;
    }
    let mut reader = Reader::new(Section { bytes: code, address: 0 });
    for _ in 0..STEPS {
        if reader.is_empty() {
            return stack.pop();
        }
        operation(&mut reader, &mut stack, context)?;
    }
    None
}

struct Stack {
    values: [u64; DEPTH],
    depth: usize,
}

impl Stack {
    fn push(&mut self, value: u64) -> Option<()> {
        *self.values.get_mut(self.depth)? = value;
        self.depth += 1;
        Some(())
    }

    fn pop(&mut self) -> Option<u64> {
        self.depth = self.depth.checked_sub(1)?;
        self.values.get(self.depth).copied()
    }

    /// The value `below` the top one.
    fn pick(&mut self, below: usize) -> Option<()> {
        let at = self.depth.checked_sub(1)?.checked_sub(below)?;
        self.push(*self.values.get(at)?)
    }
}

fn operation(r: &mut Reader<'_>, stack: &mut Stack, context: &dyn Context) -> Option<()> {
    let op = r.u8()?;
    let value = match op {
        // DW_OP_addr, DW_OP_const*
        0x03 | 0x0e | 0x0f => r.u64()?,
        0x08 => u64::from(r.u8()?),
        0x09 => r.u8()? as i8 as u64,
        0x0a => u64::from(r.u16()?),
        0x0b => r.u16()? as i16 as u64,
        0x0c => u64::from(r.u32()?),
        0x0d => r.u32()? as i32 as u64,
        0x10 => r.uleb()?,
        0x11 => r.sleb()? as u64,
        // DW_OP_deref
        0x06 => context.memory(stack.pop()?)?,
        // DW_OP_dup, DW_OP_drop, DW_OP_over, DW_OP_pick
        0x12 => return stack.pick(0),
        0x13 => return stack.pop().map(|_| ()),
        0x14 => return stack.pick(1),
        0x15 => return stack.pick(usize::from(r.u8()?)),
        // DW_OP_swap
        0x16 => {
            let (a, b) = (stack.pop()?, stack.pop()?);
            stack.push(a)?;
            b
        }
        // DW_OP_abs, DW_OP_neg, DW_OP_not
        0x19 => (stack.pop()? as i64).unsigned_abs(),
        0x1f => stack.pop()?.wrapping_neg(),
        0x20 => !stack.pop()?,
        // DW_OP_plus_uconst
        0x23 => stack.pop()?.wrapping_add(r.uleb()?),
        0x1a | 0x1c | 0x1e | 0x21 | 0x22 | 0x24..=0x27 | 0x29..=0x2e => {
            let (b, a) = (stack.pop()?, stack.pop()?);
            binary(op, a, b)
        }
        // DW_OP_bra, DW_OP_skip
        0x28 | 0x2f => {
            let distance = isize::from(r.u16()? as i16);
            if op == 0x2f || stack.pop()? != 0 {
                return r.seek(r.position().checked_add_signed(distance)?);
            }
            return Some(());
        }
        // DW_OP_lit*, DW_OP_breg*, DW_OP_bregx
        0x30..=0x4f => u64::from(op - 0x30),
        0x70..=0x8f => context.register(usize::from(op - 0x70))?.wrapping_add_signed(r.sleb()?),
        0x92 => {
            let number = usize::try_from(r.uleb()?).ok()?;
            context.register(number)?.wrapping_add_signed(r.sleb()?)
        }
        // DW_OP_nop
        0x96 => return Some(()),
        _ => return None,
    };
    stack.push(value)
}

/// Operations on two values; comparisons are signed (DWARF 5, 2.5.1.5).
fn binary(op: u8, a: u64, b: u64) -> u64 {
    let (x, y) = (a as i64, b as i64);
    let shift = u32::try_from(b).unwrap_or(64);
    match op {
        0x1a => a & b,
        0x1c => a.wrapping_sub(b),
        0x1e => a.wrapping_mul(b),
        0x21 => a | b,
        0x22 => a.wrapping_add(b),
        0x24 => a.checked_shl(shift).unwrap_or(0),
        0x25 => a.checked_shr(shift).unwrap_or(0),
        0x26 => (x >> shift.min(63)) as u64,
        0x27 => a ^ b,
        0x29 => u64::from(a == b),
        0x2a => u64::from(x >= y),
        0x2b => u64::from(x > y),
        0x2c => u64::from(x <= y),
        0x2d => u64::from(x < y),
        _ => u64::from(a != b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;
    impl Context for Fake {
        fn register(&self, number: usize) -> Option<u64> {
            match number {
                7 => Some(0x7000),
                16 => Some(0x100c),
                _ => None,
            }
        }
        fn memory(&self, address: u64) -> Option<u64> {
            (address < 0x8000).then(|| address * 2)
        }
    }

    #[test]
    fn the_procedure_linkage_table() {
        // What ld writes: rsp + 8, and 8 more from the push in the stub's second half on.
        let code = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(evaluate(&code, None, &Fake), Some(0x7010));
    }

    #[test]
    fn memory_jumps_and_nonsense() {
        assert_eq!(evaluate(&[0x77, 0x10, 0x06, 0x23, 8], None, &Fake), Some(0xe028));
        assert_eq!(evaluate(&[0x09, 0xff, 0x06], None, &Fake), None);
        assert_eq!(evaluate(&[0x2f, 0xfd, 0xff], None, &Fake), None);
        assert_eq!(evaluate(&[0x31, 0x28, 1, 0, 0x32, 0x33], None, &Fake), Some(3));
        assert_eq!(evaluate(&[0x22], Some(1), &Fake), None);
        assert_eq!(evaluate(&[], Some(5), &Fake), Some(5));
        assert_eq!(evaluate(&[0x31, 0x09, 0xff, 0x2b], None, &Fake), Some(1));
    }
}
