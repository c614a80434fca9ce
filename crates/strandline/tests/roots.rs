//! Interpreters that only other systems have: 3.14 and 3.15, and a free C library beside ours.
//!
//! `STRANDLINE_TEST_ROOTS`: colon-separated root directories of systems (as debootstrap makes
//! them) whose `/usr/bin/python3.*` are looked at from outside, as an operator looks into a
//! container. Wants the right to chroot.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::standing::*;
use common::*;

/// The interpreters of a root, as it sees them.
fn pythons_in(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("usr/bin")).unwrap().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let is_python = |name: &String| {
        let minor = name.strip_prefix("python3.");
        minor.is_some_and(|minor| minor.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut found: Vec<String> = names.filter(is_python).collect();
    found.sort();
    found
}

/// A file in a root that goes away with the value.
struct Inside(PathBuf);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const PROGRAM: &str = "
class Plain(object):
    def __init__(self):
        self.a = 1
        self.rows = None
class Slotted(object):
    __slots__ = ('one',)
plain = [Plain() for _ in range(12345)]
slotted = [Slotted() for _ in range(23456)]
floats = [i + 0.5 for i in range(34567)]
ints = [i + (1 << 40) for i in range(45678)]
dicts = [{i: i} for i in range(6789)]
plain[7].rows = bytearray(9000000)
gone = [str(i) * 4 for i in range(300000)][::1000]
def view():
    mine = [bytearray(8000000)]
    sys._debugmallocstats()
    say('ready')
    time.sleep(600)
gc.collect()
say('dicts', len([o for o in gc.get_objects() if type(o) is dict]))
say('functions', len([o for o in gc.get_objects() if type(o) is type(view)]))
view()
";

fn path(census: &Value, bytes: u64) -> String {
    let largest = census["largest"].as_array().unwrap();
    let it = largest.iter().find(|l| u(l, "bytes").abs_diff(bytes) < 1 << 16);
    let path = it.and_then(|l| l["path"].as_str()).unwrap_or("nobody");
    // From 3.15 on a bytearray has its bytes in a bytes object.
    path.trim_end_matches(" → bytes").to_owned()
}

/// `class size num pools blocks in use avail blocks` of `sys._debugmallocstats()`, by block size:
/// pools, blocks in use, free blocks.
fn size_classes(text: &str) -> Vec<(u64, u64, u64, u64)> {
    let rows = text.lines().filter_map(|line| {
        let n: Vec<u64> = line.split_whitespace().map_while(|w| w.parse().ok()).collect();
        (n.len() == 5).then(|| (n[1], n[2], n[3], n[4]))
    });
    rows.collect()
}

fn check_python(root: &Path, name: &str) {
    let inside = format!("tmp/strandline-{}-{name}.py", std::process::id());
    let file = Inside(root.join(&inside));
    std::fs::write(&file.0, program(PROGRAM)).unwrap();
    let mut command = Command::new("chroot");
    command.arg(root).arg(format!("/usr/bin/{name}")).arg(format!("/{inside}"));
    let s = Standing::of(command, Dir::new());
    let census = s.census();
    check(&s, &census, 0.001);
    let version = census["interpreters"][0]["version"].as_str().unwrap_or("none");
    assert!(version.starts_with(&name["python".len()..]), "{name}: {version}");
    for (name, n) in [("__main__.Plain", 12345), ("__main__.Slotted", 23456)] {
        assert_eq!(count(&census, name), n, "{name}");
    }
    assert!((34567..34700).contains(&count(&census, "float")));
    assert!(count(&census, "int") >= 45678);
    for (name, said) in [("dict", "dicts"), ("function", "functions")] {
        // The collector doesn't know dicts that hold nothing it could collect.
        let (n, least) = (count(&census, name), s.number(said));
        assert!(n >= least, "{n} of {name}, not {least}");
    }
    let census_classes = census["size_classes"].as_array().unwrap();
    let got: Vec<_> = census_classes
        .iter()
        .filter(|c| u(c, "pools") > 0)
        .map(|c| (u(c, "block_bytes"), u(c, "pools"), u(c, "in_use"), u(c, "free")))
        .collect();
    assert_eq!(got, size_classes(&s.errors()), "sys._debugmallocstats() of {name}");
    let rows = "__main__.plain[7] → __main__.Plain.rows → bytearray";
    assert_eq!(path(&census, 9_000_000), rows);
    let mine = path(&census, 8_000_000);
    assert!(
        mine.starts_with("view() at ") && mine.ends_with("local mine[0] → bytearray"),
        "{mine}"
    );
}

#[test]
fn interpreters_of_other_systems() {
    let Some(roots) = std::env::var_os("STRANDLINE_TEST_ROOTS") else {
        eprintln!("STRANDLINE_TEST_ROOTS isn't set: 3.14 and 3.15 are NOT looked at");
        return;
    };
    let mut looked_at = 0;
    for root in std::env::split_paths(&roots).filter(|root| !root.as_os_str().is_empty()) {
        for name in pythons_in(&root) {
            check_python(&root, &name);
            looked_at += 1;
        }
    }
    assert!(looked_at > 0, "no /usr/bin/python3.* in {roots:?}");
}
