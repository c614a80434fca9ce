//! A row squeezed into 64 bits: what the hot loop needs to get to the caller's rip, rsp and rbp.
//!
//! Nearly all rows fit. One that needs another register, or an expression that isn't one of the
//! usual, is told by [`Compact::WHOLE`]: it is run with all registers instead.

use crate::row::{Cfa, Row, Rule, RBP, RETURN, RSP};

// Bits 0 and 1: kind.
const KIND: u64 = 3;
const FRAME: u64 = 1;
const OUTERMOST: u64 = 2;
const NEEDS_ALL: u64 = 3;
/// The frame address starts from rbp instead of rsp.
const CFA_RBP: u64 = 1 << 2;
/// The frame address is in memory there.
const CFA_MEMORY: u64 = 1 << 3;
/// rbp is saved at the frame address plus an offset.
const RBP_CFA: u64 = 1 << 4;
/// rbp is saved at rsp plus an offset.
const RBP_RSP: u64 = 1 << 5;
/// rbp is saved at rbp plus an offset.
const RBP_RBP: u64 = RBP_CFA | RBP_RSP;
/// The return address is at rsp plus an offset instead of right below the frame address.
const RETURN_RSP: u64 = 1 << 6;
/// The kernel made the frame for a signal.
const SIGNAL: u64 = 1 << 7;
// Bits 8 to 31: signed offset of the frame address, bytes.
// Bits 32 to 47: signed offset of saved rbp, words.
// Bits 48 to 55: offset of the return address from rsp, words.
// Bits 56 to 63: signed bytes to add to a frame address that was in memory.

const WORD: i64 = 8;

/// The squeezed row. 0 is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compact(pub u64);

/// Registers that the hot loop follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Few {
    /// Address of the next instruction.
    pub pc: usize,
    /// Stack pointer.
    pub sp: usize,
    /// rbp.
    pub fp: usize,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<R> {
    /// The caller's registers; true: it was interrupted, its pc is no return address.
    Caller(R, bool),
    /// There is no caller.
    Outermost,
    /// The rules lead out of the stack.
    Lost,
}

impl Compact {
    /// There is no row.
    pub const NONE: Compact = Compact(0);
    /// The row must be run with all registers.
    pub const WHOLE: Compact = Compact(NEEDS_ALL);

    /// True if the row must be run with all registers.
    #[inline(always)]
    pub fn needs_all(self) -> bool {
        self.0 & KIND == NEEDS_ALL
    }

    /// True for the rows that nearly all frames have: [`Compact::common_step`] runs them.
    #[inline(always)]
    pub fn is_common(self) -> bool {
        self.0 & (KIND | CFA_MEMORY | RBP_RSP | RETURN_RSP | SIGNAL) == FRAME
    }

    /// Goes to the caller: its pc, sp and rbp. Only for common rows; the values are no structure,
    /// which the compiler would keep in memory.
    #[inline(always)]
    pub fn common_step(
        self,
        sp: usize,
        fp: usize,
        read: impl Fn(usize) -> Option<usize>,
    ) -> Option<(usize, usize, usize)> {
        let base = if self.0 & CFA_RBP != 0 { fp } else { sp };
        let cfa = base.wrapping_add_signed(self.cfa_offset());
        let pc = read(cfa.wrapping_sub(WORD as usize))?;
        let fp = if self.0 & RBP_CFA != 0 {
            read(cfa.wrapping_add_signed(self.saved_rbp()))?
        } else {
            fp
        };
        // A stack grows downwards: a caller's frame is above.
        (cfa > sp).then_some((pc, cfa, fp))
    }

    #[inline(always)]
    fn cfa_offset(self) -> isize {
        (self.0 as u32 as i32 >> 8) as isize
    }

    #[inline(always)]
    fn saved_rbp(self) -> isize {
        (self.0 >> 32) as i16 as isize * WORD as isize
    }

    /// Squeezes a row.
    pub fn new(row: &Row<'_>) -> Compact {
        if row.rule(RETURN) == Rule::Undefined {
            return Compact(OUTERMOST);
        }
        Self::frame(row).unwrap_or(Self::WHOLE)
    }

    fn frame(row: &Row<'_>) -> Option<Compact> {
        let mut bits = FRAME | if row.signal { SIGNAL } else { 0 };
        let (register, offset, after, in_memory) = match row.cfa {
            Cfa::Register(register, offset) => (register, offset, 0, false),
            Cfa::Expression(code) => {
                let (register, offset, after) = loaded(code)?;
                (register, offset, after, true)
            }
        };
        bits |= match register {
            RSP => 0,
            RBP => CFA_RBP,
            _ => return None,
        };
        if in_memory {
            bits |= CFA_MEMORY;
        }
        bits |= field(offset, 24)? << 8 | field(after, 8)? << 56;
        bits |= match row.rule(RBP) {
            Rule::Unspecified | Rule::Same | Rule::Undefined => 0,
            Rule::Offset(offset) => RBP_CFA | words(offset, 16)? << 32,
            Rule::Expression(code) => match address(code)? {
                (RSP, offset) => RBP_RSP | words(offset, 16)? << 32,
                (RBP, offset) => RBP_RBP | words(offset, 16)? << 32,
                _ => return None,
            },
            _ => return None,
        };
        bits |= match row.rule(RETURN) {
            Rule::Offset(offset) if offset == -WORD => 0,
            Rule::Expression(code) => match address(code)? {
                (RSP, offset) if offset >= 0 => RETURN_RSP | words(offset, 8)? << 48,
                _ => return None,
            },
            _ => return None,
        };
        match row.rule(RSP) {
            Rule::Unspecified => {}
            // The kernel's frames say where rsp is, which is the frame address as well.
            Rule::Expression(code) if in_memory && after == 0 => {
                if address(code)? != (register, offset) {
                    return None;
                }
            }
            _ => return None,
        }
        Some(Compact(bits))
    }

    /// Goes to the caller, whatever the row. `read` gives the word at an address of the stack.
    pub fn step(self, from: Few, read: impl Fn(usize) -> Option<usize>) -> Step<Few> {
        self.go(from, read).unwrap_or(Step::Lost)
    }

    fn go(self, from: Few, read: impl Fn(usize) -> Option<usize>) -> Option<Step<Few>> {
        let bits = self.0;
        match bits & KIND {
            FRAME => {}
            OUTERMOST => return Some(Step::Outermost),
            _ => return None,
        }
        let base = if bits & CFA_RBP != 0 { from.fp } else { from.sp };
        let mut cfa = base.wrapping_add_signed(self.cfa_offset());
        if bits & CFA_MEMORY != 0 {
            cfa = read(cfa)?.wrapping_add_signed((bits as i64 >> 56) as isize);
        }
        let fp = match bits & RBP_RBP {
            0 => from.fp,
            which => {
                let base = match which {
                    RBP_CFA => cfa,
                    RBP_RSP => from.sp,
                    _ => from.fp,
                };
                read(base.wrapping_add_signed(self.saved_rbp()))?
            }
        };
        let at = if bits & RETURN_RSP != 0 {
            from.sp.wrapping_add((bits >> 48 & 0xff) as usize * WORD as usize)
        } else {
            cfa.wrapping_sub(WORD as usize)
        };
        let pc = read(at)?;
        // A stack grows downwards: a caller's frame is above.
        if cfa <= from.sp {
            return None;
        }
        Some(Step::Caller(Few { pc, sp: cfa, fp }, bits & SIGNAL != 0))
    }
}

/// `value` as a two's complement number of `bits` bits, if it fits.
fn field(value: i64, bits: u32) -> Option<u64> {
    let half = 1i64 << (bits - 1);
    (-half..half).contains(&value).then_some(value as u64 & ((1 << bits) - 1))
}

/// A number of bytes as a number of words, in `bits` bits.
fn words(bytes: i64, bits: u32) -> Option<u64> {
    if bytes % WORD != 0 {
        return None;
    }
    field(bytes / WORD, bits)
}

/// `DW_OP_breg` of rsp or rbp, and what follows it.
fn register(code: &[u8]) -> Option<(usize, i64, &[u8])> {
    let (&op, code) = code.split_first()?;
    let register = usize::from(op.checked_sub(0x70)?);
    let (offset, code) = match *code {
        [a, ref rest @ ..] if a < 0x80 => (i64::from(a) << 57 >> 57, rest),
        [a, b, ref rest @ ..] if b < 0x80 => {
            ((i64::from(a & 0x7f) | i64::from(b) << 7) << 50 >> 50, rest)
        }
        _ => return None,
    };
    Some((register, offset, code))
}

/// Register and offset of an expression that only adds the two.
fn address(code: &[u8]) -> Option<(usize, i64)> {
    match register(code)? {
        (register, offset, []) => Some((register, offset)),
        _ => None,
    }
}

/// Register, offset, and what is added after, of an expression that loads a word: that of the
/// kernel's frames, of functions that realign their stack, and of hand-written assembly.
fn loaded(code: &[u8]) -> Option<(usize, i64, i64)> {
    match register(code)? {
        (register, offset, [0x06]) => Some((register, offset, 0)),
        (register, offset, [0x06, 0x23, after]) if *after < 0x80 => {
            Some((register, offset, i64::from(*after)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cfa: Cfa<'static>) -> Row<'static> {
        let mut rules = [Rule::Unspecified; 17];
        rules[RETURN] = Rule::Offset(-8);
        Row { cfa, rules, signal: false }
    }

    fn step(row: &Row<'_>, from: Few) -> Step<Few> {
        // A stack whose words are their own addresses plus 1000.
        let read = |a| (a < 0x9000).then(|| a + 1000);
        let row = Compact::new(row);
        let step = row.step(from, read);
        if row.is_common() {
            let common = row.common_step(from.sp, from.fp, read);
            let common = common.map(|(pc, sp, fp)| Step::Caller(Few { pc, sp, fp }, false));
            assert_eq!(common.unwrap_or(Step::Lost), step);
        }
        step
    }

    const FROM: Few = Few { pc: 1, sp: 0x1000, fp: 0x2000 };

    #[test]
    fn usual_rows() {
        let mut r = row(Cfa::Register(RSP, 0x50));
        assert_eq!(
            step(&r, FROM),
            Step::Caller(Few { pc: 0x1048 + 1000, sp: 0x1050, fp: 0x2000 }, false)
        );
        r.cfa = Cfa::Register(RBP, 16);
        r.rules[RBP] = Rule::Offset(-16);
        assert_eq!(
            step(&r, FROM),
            Step::Caller(Few { pc: 0x2008 + 1000, sp: 0x2010, fp: 0x2000 + 1000 }, false)
        );
        r.cfa = Cfa::Register(RBP, -0x1000);
        assert_eq!(step(&r, FROM), Step::Lost);
        r.cfa = Cfa::Register(RSP, 0x80_0000);
        assert!(Compact::new(&r).needs_all());
        r.cfa = Cfa::Register(3, 0x80);
        assert!(Compact::new(&r).needs_all());
        r.rules[RETURN] = Rule::Undefined;
        assert_eq!(step(&r, FROM), Step::Outermost);
        assert_eq!(Compact::NONE.step(FROM, Some), Step::Lost);
    }

    #[test]
    fn rows_with_expressions() {
        // GCC, a function that realigns its stack: the frame address is at rbp - 8.
        let mut r = row(Cfa::Expression(&[0x76, 0x78, 0x06]));
        r.rules[RBP] = Rule::Expression(&[0x76, 0]);
        let sp = 0x2000 - 8 + 1000;
        assert_eq!(
            step(&r, FROM),
            Step::Caller(Few { pc: sp - 8 + 1000, sp, fp: 0x2000 + 1000 }, false)
        );
        // glibc, __restore_rt: all are at offsets from rsp.
        let mut r = row(Cfa::Expression(&[0x77, 0xa0, 1, 0x06]));
        r.signal = true;
        r.rules[RSP] = Rule::Expression(&[0x77, 0xa0, 1]);
        r.rules[RBP] = Rule::Expression(&[0x77, 0xf8, 0]);
        r.rules[RETURN] = Rule::Expression(&[0x77, 0xa8, 1]);
        assert_eq!(
            step(&r, FROM),
            Step::Caller(Few { pc: 0x10a8 + 1000, sp: 0x10a0 + 1000, fp: 0x1078 + 1000 }, true)
        );
        r.rules[RSP] = Rule::Expression(&[0x77, 0xa8, 1]);
        assert!(Compact::new(&r).needs_all());
        let r = row(Cfa::Expression(&[0x77, 0x10, 0x06, 0x23, 8]));
        assert!(matches!(step(&r, FROM), Step::Caller(Few { sp, .. }, _) if sp == 0x1018 + 1000));
    }
}
