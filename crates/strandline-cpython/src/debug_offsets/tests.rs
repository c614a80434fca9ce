use super::*;
use std::vec;
use std::vec::Vec;

/// The table an interpreter of that version has, with the values CPython's
/// headers give: the words used here, zero elsewhere.
fn fixture(minor: u8) -> Vec<u8> {
    let (groups, base) = match minor {
        13 => (&GROUPS_313, debug_base(3, 13).unwrap()),
        14 => (&GROUPS_314, debug_base(3, 14).unwrap()),
        _ => (&GROUPS_315, debug_base(3, 15).unwrap()),
    };
    let mut words = vec![0_u64; groups.words];
    words[0] = u64::from_le_bytes(*b"xdebugpy");
    words[1] = (3 << 24) | (u64::from(minor) << 16) | (1 << 8) | 0xf0;
    let mut put = |at: usize, values: &[u32]| {
        for (word, value) in words[at..].iter_mut().zip(values) {
            *word = u64::from(*value);
        }
    };
    let words16 = |values: &[u16]| values.iter().map(|v| u32::from(*v)).collect::<Vec<_>>();

    let i = &base.interp;
    let runtime_size = i.size + 400_000;
    put(3, &[runtime_size, 0, i.runtime_interpreters_head.unwrap()]);
    put(6, &[i.size, i.id.unwrap(), i.next, i.threads_head]);
    put(groups.ceval_gil, &[i.gil.unwrap()]);

    let t = &base.tstate;
    let CurrentFrame::Direct { current_frame } = t.current_frame else {
        panic!("3.13 and later have a direct frame pointer");
    };
    let tstate = [888, 0, t.next, t.interp, current_frame];
    put(groups.thread_state, &words16(&tstate));
    put(groups.thread_id, &words16(&[t.thread_id]));

    let f = base.frame.interpreter.unwrap();
    let frame = [f.size, f.previous, f.executable, f.instr_ptr, 72, f.owner];
    put(groups.interpreter_frame, &words16(&frame));

    let c = &base.code;
    let Bytecode::Inline(inline) = c.code else {
        panic!("3.13 and later have inline bytecode");
    };
    let qualname = c.qualname.unwrap();
    let code = [c.size, c.filename, c.name, qualname, c.linetable];
    put(groups.code_object, &words16(&code));
    put(groups.code_object + 5, &words16(&[c.firstlineno]));
    let SlotNames::One(names) = c.slot_names else {
        panic!("3.13 and later have the names in one tuple");
    };
    put(groups.code_object + 7, &words16(&[names]));
    put(groups.co_code_adaptive, &words16(&[inline]));

    let o = &base.object;
    put(groups.pyobject, &words16(&[16, o.type_]));
    put(groups.type_object, &words16(&[416, o.tp_name]));
    put(groups.tp_flags, &words16(&[o.tp_flags]));
    let tuple = [o.tuple_items + 8, o.tuple_items, o.tuple_len];
    put(groups.tuple_object, &words16(&tuple));
    put(groups.long_object, &words16(&[32, o.long_tag, o.long_digits]));

    let bytes = [40, base.bytes.len, base.bytes.data];
    put(groups.bytes_object, &words16(&bytes));

    let Str::Flexible(s) = base.str_ else {
        panic!("3.x has flexible strings");
    };
    let text = [s.data_pointer + 8, s.state, s.length, s.ascii_data];
    put(groups.unicode_object, &words16(&text));
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn set(bytes: &mut [u8], word: usize, value: u64) {
    bytes[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn the_known_tables_give_the_known_layouts() {
    for minor in 13..=15 {
        let layout = from_debug_offsets(&fixture(minor));
        assert_eq!(layout.as_ref(), Ok(debug_base(3, minor).unwrap()));
    }
}

#[test]
fn what_follows_the_table_is_ignored() {
    let mut bytes = fixture(14);
    bytes.extend_from_slice(&[0xff; 1000]);
    assert!(from_debug_offsets(&bytes).is_ok());
}

#[test]
fn truncated_tables_are_refused() {
    for minor in 13..=15 {
        let bytes = fixture(minor);
        assert!(bytes.len() <= DEBUG_OFFSETS_MAX);
        for len in 0..bytes.len() {
            let error = from_debug_offsets(&bytes[..len]).unwrap_err();
            assert!(
                matches!(error, DebugOffsetsError::Truncated { needed, have }
                    if have == len && needed > len),
                "{len} bytes of 3.{minor}: {error}"
            );
        }
    }
}

#[test]
fn other_bytes_versions_and_builds_are_refused() {
    let zeros = from_debug_offsets(&[0; 900]);
    assert_eq!(zeros, Err(DebugOffsetsError::BadCookie));
    let mut bytes = fixture(15);
    set(&mut bytes, 1, 0x0310_00f0);
    let (major, minor) = (3, 16);
    assert_eq!(
        from_debug_offsets(&bytes),
        Err(DebugOffsetsError::UnsupportedVersion { major, minor })
    );
    let mut bytes = fixture(13);
    set(&mut bytes, 2, 1);
    let free_threaded = from_debug_offsets(&bytes);
    assert_eq!(free_threaded, Err(DebugOffsetsError::FreeThreaded));
}

#[test]
fn offsets_outside_their_structure_are_refused() {
    let mut bytes = fixture(13);
    let field = "thread_state.thread_id";
    for value in [888, 881, u64::MAX] {
        set(&mut bytes, GROUPS_313.thread_id, value);
        assert_eq!(from_debug_offsets(&bytes), Err(DebugOffsetsError::Implausible { field }));
    }
}

#[test]
fn members_that_moved_take_their_neighbours_along() {
    let mut bytes = fixture(14);
    set(&mut bytes, GROUPS_314.thread_id, 160);
    set(&mut bytes, GROUPS_314.co_code_adaptive, 209);
    set(&mut bytes, 6, 225_872);
    assert!(!GROUPS_314.interp_sizes.contains(&225_872));
    let layout = from_debug_offsets(&bytes).unwrap();
    assert_eq!(layout.tstate.thread_id, 160);
    assert_eq!(layout.tstate.c_traceobj, None);
    assert_eq!(layout.code.extra, None);
    assert_eq!(layout.code.monitoring, None);
    assert_eq!(layout.code.flags, Some(48));
    assert_eq!(layout.interp.size, 225_872);
    assert_eq!(layout.interp.eval_frame, None);
    assert_eq!(layout.interp.own_gil, None);
}

#[test]
fn each_known_size_of_the_interpreter_keeps_its_members() {
    let groups = [(13, &GROUPS_313), (14, &GROUPS_314), (15, &GROUPS_315)];
    for (minor, size) in groups.iter().flat_map(|(m, g)| g.interp_sizes.map(|size| (*m, size))) {
        let mut bytes = fixture(minor);
        set(&mut bytes, 6, u64::from(size));
        let layout = from_debug_offsets(&bytes).unwrap();
        assert!(layout.interp.eval_frame.is_some());
        assert!(layout.interp.own_gil.is_some());
    }
}

#[test]
fn arbitrary_words_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut bytes = fixture(13 + (random() % 3) as u8);
        let count = bytes.len() / 8;
        for _ in 0..1 + random() % 4 {
            let word = (random() % count as u64) as usize;
            let shift = random() % 64;
            let value = random() >> shift;
            set(&mut bytes, word, value);
        }
        bytes.truncate((random() % (bytes.len() as u64 * 4)) as usize);
        if let Ok(layout) = from_debug_offsets(&bytes) {
            assert_eq!(layout.version.0, 3);
        }
    }
    for len in 0..1000 {
        let bytes: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        assert!(from_debug_offsets(&bytes).is_err());
    }
}
