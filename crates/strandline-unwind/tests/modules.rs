//! Modules by address. One test: nobody else may look for modules meanwhile.

mod common;

use strandline_unwind::{modules, refresh};

#[test]
fn a_module_is_known_by_an_address() {
    refresh();
    let dir = common::directory("at");
    let library = |name: &str, flag: &str| {
        let library = dir.join(name);
        common::compile("cc", &["-O1", flag], &["other.c"], &library, &[]);
        library
    };
    let libraries = [library("libone.so", "-DA=1"), library("libtwo.so", "-DA=2")];
    // Nobody calls `refresh`: whichever lies there now is found.
    for round in 0..20 {
        let library = common::load(&libraries[round % 2]);
        let place = common::symbol(library, "other_library") as usize;
        let (index, module) = modules::at(place).expect("just loaded");
        let name: &[u8] = if round % 2 == 0 { b"libone.so" } else { b"libtwo.so" };
        assert!(module.path.ends_with(name) && modules::is_loaded(index));
        assert_eq!(modules::at(place).map(|found| found.0), Some(index));
        let function = strandline_unwind::function_at(place).expect("it has a table");
        assert!(function.start == place && function.contains(function.end - 1));
        // SAFETY: a handle of `load`, nothing of which is used any more.
        unsafe { libc::dlclose(library) };
    }
    assert!(modules::at(0x1000).is_none());
    assert!(strandline_unwind::function_at(0x1000).is_none());
    assert!(strandline_unwind::resident() > 0);
}
