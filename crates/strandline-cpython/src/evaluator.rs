//! The C function that runs Python frames, as the machine's stack has it.

/// How an activation of the evaluator (`_PyEval_EvalFrameDefault`, in 2.7 `PyEval_EvalFrameEx`) is
/// recognised on the machine's stack, and which Python frames it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluator {
    /// Up to 3.10: by its code. It runs one frame; a call of a Python function is a call of it
    /// (Python/ceval.c).
    OneFrame,
    /// 3.11: one of its variables is the `_PyCFrame` that the thread state, or a later
    /// activation's, points to. It runs the frames from that one's `current_frame` up to the
    /// `current_frame` of the previous `_PyCFrame` (Python/ceval.c, Include/cpython/pystate.h).
    CFrame {
        /// Offset of the pointer `previous` in `_PyCFrame`.
        previous: u16,
    },
    /// From 3.12: one of its variables is a `_PyInterpreterFrame` without code (`entry_frame`), the
    /// outermost of the frames that it runs (Python/ceval.c).
    EntryFrame,
}

/// The facts for a version.
pub const fn evaluator(version: (u8, u8)) -> Evaluator {
    match version {
        (..=2, _) | (3, ..=10) => Evaluator::OneFrame,
        (3, 11) => Evaluator::CFrame { previous: 16 },
        _ => Evaluator::EntryFrame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_one() {
        for version in [(2, 7), (3, 6), (3, 10)] {
            assert_eq!(evaluator(version), Evaluator::OneFrame);
        }
        assert_eq!(evaluator((3, 11)), Evaluator::CFrame { previous: 16 });
        for version in [(3, 12), (3, 13), (3, 15), (4, 0)] {
            assert_eq!(evaluator(version), Evaluator::EntryFrame);
        }
    }
}
