//! The parser of call frame information, fed with arbitrary and with damaged bytes: it reads
//! slices only, so a read outside would panic, and it always ends.
#![allow(missing_docs)]

use proptest::prelude::*;
use strandline_unwind::cfi::{evaluate, find, frames_address, Context, Row, Section};

struct Everything;
impl Context for Everything {
    fn register(&self, number: usize) -> Option<u64> {
        (number < 17).then(|| number as u64 * 0x1111)
    }
    fn memory(&self, address: u64) -> Option<u64> {
        (address % 3 != 0).then(|| address.wrapping_mul(0x9e37_79b9))
    }
}

const HEADER: u64 = 0x10_0000;
const FRAMES: u64 = 0x10_1000;
const CODE: u64 = 0x20_0000;

/// `.eh_frame` of one function of 256 bytes with these instructions, and its header.
fn sections(augmentation: &[u8], initial: &[u8], program: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut common = vec![0, 0, 0, 0, 1];
    common.extend(augmentation);
    common.extend([0, 1, 0x78, 16, 1, 0x1b]);
    common.extend(initial);
    let mut frames = (common.len() as u32).to_le_bytes().to_vec();
    frames.extend(&common);
    let entry = frames.len() as u64;
    let back = entry as u32 + 4;
    let start = CODE.wrapping_sub(FRAMES + entry + 8) as u32;
    frames.extend((4 + 4 + 4 + 1 + program.len() as u32).to_le_bytes());
    frames.extend(back.to_le_bytes());
    frames.extend(start.to_le_bytes());
    frames.extend(256u32.to_le_bytes());
    frames.push(0);
    frames.extend(program);
    frames.extend([0; 4]);
    let mut header = vec![1, 0x1b, 0x03, 0x3b];
    header.extend((FRAMES.wrapping_sub(HEADER + 4) as u32).to_le_bytes());
    header.extend(1u32.to_le_bytes());
    header.extend(((CODE - HEADER) as u32).to_le_bytes());
    header.extend(((FRAMES + entry - HEADER) as u32).to_le_bytes());
    (header, frames)
}

fn try_all(header: &[u8], frames: &[u8], pc: u64) -> Option<()> {
    let header = Section { bytes: header, address: HEADER };
    let frames = Section { bytes: frames, address: FRAMES };
    frames_address(header);
    let entry = find(header, frames, pc)?;
    let row = Row::at(&entry, pc)?;
    for register in 0..20 {
        use strandline_unwind::cfi::Rule;
        if let Rule::Expression(code) | Rule::ValueExpression(code) = row.rule(register) {
            evaluate(code, Some(1), &Everything);
        }
    }
    Some(())
}

#[test]
fn a_small_function_is_understood() {
    use strandline_unwind::cfi::{Cfa, Rule};
    // push rbp at byte 1, mov rbp, rsp at 4; leave at the end, by remembering the state.
    let program = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x0a, 0x02, 200, 0x0c, 7, 8, 0x41, 0x0b];
    let (header, frames) = sections(b"zR", &[0x0c, 7, 8, 0x90, 1], &program);
    let header = Section { bytes: &header, address: HEADER };
    let frames = Section { bytes: &frames, address: FRAMES };
    assert_eq!(frames_address(header), Some(FRAMES));
    let row = |at| Row::at(&find(header, frames, CODE + at).unwrap(), CODE + at).unwrap();
    for (at, cfa, rbp) in [
        (0, Cfa::Register(7, 8), Rule::Unspecified),
        (1, Cfa::Register(7, 16), Rule::Offset(-16)),
        (3, Cfa::Register(7, 16), Rule::Offset(-16)),
        (4, Cfa::Register(6, 16), Rule::Offset(-16)),
        (203, Cfa::Register(6, 16), Rule::Offset(-16)),
        (204, Cfa::Register(7, 8), Rule::Offset(-16)),
        (205, Cfa::Register(6, 16), Rule::Offset(-16)),
        (255, Cfa::Register(6, 16), Rule::Offset(-16)),
    ] {
        assert_eq!((row(at).cfa, row(at).rule(6)), (cfa, rbp), "{at}");
        assert_eq!(row(at).rule(16), Rule::Offset(-8));
    }
    assert!(find(header, frames, CODE + 256).is_none());
    assert!(find(header, frames, CODE - 1).is_none());
    // Without a sorted table the entries are gone through one by one.
    let plain = Section { bytes: &[1, 0x1b, 0xff, 0xff, 0, 0, 0, 0], address: HEADER };
    assert!(find(plain, frames, CODE + 255).is_some());
    assert!(find(plain, frames, CODE + 256).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn arbitrary_bytes(
        header in prop::collection::vec(any::<u8>(), 0..64),
        frames in prop::collection::vec(any::<u8>(), 0..256),
        pc in any::<u64>(),
    ) {
        try_all(&header, &frames, pc);
        try_all(&[1, 0x1b, 0xff, 0xff], &frames, pc);
    }

    #[test]
    fn arbitrary_instructions(
        initial in prop::collection::vec(any::<u8>(), 0..16),
        program in prop::collection::vec(any::<u8>(), 0..96),
        at in 0u64..300,
    ) {
        let (header, frames) = sections(b"zR", &initial, &program);
        try_all(&header, &frames, CODE + at);
    }

    #[test]
    fn damaged_tables(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        at in 0u64..300,
    ) {
        let program = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x16, 3, 2, 0x76, 0x10];
        let (mut header, mut frames) = sections(b"zR", &[0x0c, 7, 8, 0x90, 1], &program);
        for (index, value) in damage {
            let at = index.index(header.len() + frames.len());
            match header.len() {
                length if at < length => header[at] = value,
                length => frames[at - length] = value,
            }
        }
        frames.truncate(frames.len() - cut.index(frames.len()) / 4);
        try_all(&header, &frames, CODE + at);
    }

    #[test]
    fn arbitrary_expressions(code in prop::collection::vec(any::<u8>(), 0..64), first in any::<u64>()) {
        evaluate(&code, None, &Everything);
        evaluate(&code, Some(first), &Everything);
    }
}
