//! The registers of a frame, and taking those of the running function.

use crate::compact::{Few, Step};
use crate::expression::{evaluate, Context};
use crate::row::{Cfa, Row, Rule, RBP, REGISTERS, RETURN, RSP};

/// Registers by their numbers in the System V ABI (figure 3.36): rax, rdx, rcx, rbx, rsi, rdi,
/// rbp, rsp, r8 to r15, and rip in place of the return address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// The values.
    pub values: [usize; REGISTERS],
}

impl Registers {
    /// Those of the function that this is inlined into, which is where unwinding starts. Those
    /// that a function need not preserve are 0: no rule refers to them after a call.
    #[inline(always)]
    pub fn here() -> Registers {
        let mut r = Registers::default();
        // SAFETY: the instructions store registers into `r`, whose layout is fixed by repr(C):
        // rbx at 3, rbp at 6, rsp at 7, r12 to r15 at 12 to 15, rip at 16 words. rax is
        // declared as clobbered, nothing else is changed.
        unsafe {
            core::arch::asm!(
                "mov [{r} + 24], rbx",
                "mov [{r} + 48], rbp",
                "mov [{r} + 56], rsp",
                "mov [{r} + 96], r12",
                "mov [{r} + 104], r13",
                "mov [{r} + 112], r14",
                "mov [{r} + 120], r15",
                "lea rax, [rip]",
                "mov [{r} + 128], rax",
                r = in(reg) &mut r,
                out("rax") _,
                options(nostack, preserves_flags),
            );
        }
        r
    }

    /// Value of a register.
    pub fn get(&self, number: usize) -> usize {
        self.values.get(number).copied().unwrap_or(0)
    }

    /// Those that the hot loop follows.
    #[inline(always)]
    pub(crate) fn few(&self) -> Few {
        let [_, _, _, _, _, _, fp, sp, _, _, _, _, _, _, _, _, pc] = self.values;
        Few { pc, sp, fp }
    }

    /// The same with other values of the three that the hot loop follows.
    pub(crate) fn with(mut self, few: Few) -> Registers {
        for (number, value) in [(RETURN, few.pc), (RSP, few.sp), (RBP, few.fp)] {
            self.set(number, value);
        }
        self
    }

    fn set(&mut self, number: usize, value: usize) {
        if let Some(slot) = self.values.get_mut(number) {
            *slot = value;
        }
    }

    /// Goes to the caller by all rules of `row`. `read` gives the word at an address of the
    /// stack. `interrupted`: the frame called nobody. It may have taken its return address off
    /// the stack already (the end of libgcc's `_Unwind_RaiseException` does); all others' callers
    /// are above them.
    pub(crate) fn step(
        &self,
        row: &Row<'_>,
        interrupted: bool,
        read: &dyn Fn(usize) -> Option<usize>,
    ) -> Step<Registers> {
        if row.rule(RETURN) == Rule::Undefined {
            return Step::Outermost;
        }
        match self.apply(row, read) {
            Some(caller)
                if caller.get(RSP) > self.get(RSP)
                    || (interrupted && caller.get(RSP) == self.get(RSP)) =>
            {
                Step::Caller(caller, row.signal)
            }
            _ => Step::Lost,
        }
    }

    fn apply(&self, row: &Row<'_>, read: &dyn Fn(usize) -> Option<usize>) -> Option<Registers> {
        let machine = Machine { registers: self, read };
        let cfa = match row.cfa {
            Cfa::Register(number, offset) => machine.register(number)?.wrapping_add_signed(offset),
            Cfa::Expression(code) => evaluate(code, None, &machine)?,
        };
        let mut caller = *self;
        caller.set(RSP, cfa as usize);
        for number in 0..REGISTERS {
            let value = match row.rule(number) {
                Rule::Unspecified | Rule::Undefined | Rule::Same => {
                    if number == RETURN {
                        return None;
                    }
                    continue;
                }
                Rule::Offset(offset) => machine.memory(cfa.wrapping_add_signed(offset))?,
                Rule::ValueOffset(offset) => cfa.wrapping_add_signed(offset),
                Rule::Register(number) => machine.register(number)?,
                Rule::Expression(code) => machine.memory(evaluate(code, Some(cfa), &machine)?)?,
                Rule::ValueExpression(code) => evaluate(code, Some(cfa), &machine)?,
            };
            caller.set(number, value as usize);
        }
        Some(caller)
    }
}

/// What expressions may ask for.
struct Machine<'a> {
    registers: &'a Registers,
    read: &'a dyn Fn(usize) -> Option<usize>,
}

impl Context for Machine<'_> {
    fn register(&self, number: usize) -> Option<u64> {
        self.registers.values.get(number).map(|&v| v as u64)
    }

    fn memory(&self, address: u64) -> Option<u64> {
        (self.read)(address as usize).map(|v| v as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn here_is_here() {
        let r = Registers::here();
        let local = 0u8;
        let distance = (&raw const local as usize).abs_diff(r.get(RSP));
        assert!(distance < 0x10000, "{distance}");
        let code = here_is_here as fn() as usize;
        assert!(r.get(RETURN).wrapping_sub(code) < 0x10000);
    }

    #[test]
    fn all_rules() {
        let mut r = Registers::default();
        r.set(RSP, 0x1000);
        r.set(3, 0x1800);
        r.set(10, 77);
        let mut row = Row { cfa: Cfa::Register(3, 0x20), rules: Default::default(), signal: true };
        row.rules[RETURN] = Rule::Offset(-8);
        row.rules[12] = Rule::Register(10);
        row.rules[13] = Rule::ValueOffset(8);
        row.rules[14] = Rule::Expression(&[0x23, 0x10]);
        row.rules[15] = Rule::ValueExpression(&[0x73, 1]);
        let read = |a: usize| (a < 0x4000).then_some(a + 1);
        let Step::Caller(caller, true) = r.step(&row, false, &read) else { panic!("no caller") };
        assert_eq!(caller.few(), Few { pc: 0x1819, sp: 0x1820, fp: 0 });
        assert_eq!(&caller.values[12..16], &[77, 0x1828, 0x1831, 0x1801]);
        row.cfa = Cfa::Register(3, -0x1000);
        assert_eq!(r.step(&row, false, &read), Step::Lost);
        // Before a jump back, with the return address in a register.
        row.cfa = Cfa::Register(RSP, 0);
        row.rules[RETURN] = Rule::Register(10);
        row.signal = false;
        assert_eq!(r.step(&row, false, &read), Step::Lost);
        let Step::Caller(caller, false) = r.step(&row, true, &read) else { panic!("no caller") };
        assert_eq!(caller.few(), Few { pc: 77, sp: 0x1000, fp: 0 });
        row.cfa = Cfa::Register(40, 0);
        assert_eq!(r.step(&row, false, &read), Step::Lost);
    }
}
