//! Running programs with `run --stacks`, and asking the profile.

use std::io::Write;
use std::path::{Path as File, PathBuf};
use std::process::{Child, Command};

use strandline_profile::{Amount, Domain, Path, Process, Profile, Weight};

use super::{clean, run, Dir, Python, Ran};

/// A program that was run with `--stacks`, and its profile.
pub struct Recorded {
    pub ran: Ran,
    pub profile: Profile,
    _dir: Dir,
}

pub fn read(path: &File) -> Profile {
    let mut file = std::fs::File::open(path).unwrap();
    strandline_profile::read(&mut file).unwrap()
}

pub fn command(python: &Python, dir: &Dir, source: &str, options: &[&str]) -> (Command, PathBuf) {
    let script = dir.file("program.py", source);
    let profile = dir.join("out.strand");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    clean(&mut command);
    command.args(["run", "--stacks", "-o"]).arg(&profile).args(options);
    command.arg("--python").arg(&python.path).arg(script).current_dir(dir.path());
    (command, profile)
}

pub fn record_with(python: &Python, source: &str, options: &[&str]) -> Recorded {
    let dir = Dir::new();
    let (mut command, path) = command(python, &dir, source, options);
    let ran = run(&mut command, "");
    let profile = read(&path);
    Recorded { ran, profile, _dir: dir }
}

pub fn record(python: &Python, source: &str) -> Recorded {
    let recorded = record_with(python, source, &[]);
    assert_eq!(recorded.ran.code, Some(0), "{}", recorded.ran.stderr);
    assert!(recorded.profile.doubts.is_empty(), "{:?}", recorded.profile.doubts);
    recorded
}

/// Function names of a path, innermost first.
pub fn names<'a>(process: &'a Process, path: &Path) -> Vec<(&'a str, u32)> {
    let mut names = Vec::new();
    let mut node = path.node as usize;
    while node != 0 {
        let frame = process.frames[process.nodes[node].frame as usize];
        let name = process.strings[frame.function as usize].as_str();
        names.push((name.rsplit('.').next().unwrap(), frame.line));
        node = process.nodes[node].parent as usize;
    }
    names
}

/// What was allocated by calls that end in these functions, innermost first.
pub fn under(process: &Process, functions: &[&str], weight: Weight) -> Amount {
    let fits = |path: &&Path| {
        let names = names(process, path);
        names.len() >= functions.len() && names.iter().zip(functions).all(|(n, f)| n.0 == *f)
    };
    let amounts = process.paths.iter().filter(fits).map(|path| weight.of(path));
    amounts.fold(Amount::default(), Amount::plus)
}

pub fn sum(process: &Process, weight: Weight) -> Amount {
    process.paths.iter().map(|path| weight.of(path)).fold(Amount::default(), Amount::plus)
}

/// Number of requests of that size class and domain by calls that end in this function.
pub fn requests(process: &Process, function: &str, domain: Domain, bytes: usize) -> u64 {
    let class = strandline_capture::layout::size_class(bytes);
    let fits = |path: &&Path| {
        path.domain == domain && names(process, path).first().is_some_and(|n| n.0 == function)
    };
    let paths = process.paths.iter().filter(fits);
    paths.map(|path| u64::from(path.sizes.get(class).copied().unwrap_or(0))).sum()
}

/// Every profile adds up.
pub fn adds_up(process: &Process) {
    assert_eq!(sum(process, Weight::InUse).bytes, process.totals.in_use);
    assert_eq!(sum(process, Weight::Peak).bytes, process.totals.peak);
    for path in &process.paths {
        let own = path.allocated.blocks - path.inherited.blocks;
        assert_eq!(path.sizes.iter().map(|&n| u64::from(n)).sum::<u64>(), own);
        let ended: u64 = path.lifetimes.iter().map(|&n| u64::from(n)).sum();
        assert_eq!(ended, path.freed.blocks, "{:?}", names(process, path));
    }
}

/// What calls that end in this function asked this allocator for, and what was freed of it.
pub fn asked(process: &Process, function: &str, domain: Domain) -> (Amount, Amount) {
    let fits = |path: &&Path| {
        path.domain == domain && names(process, path).first().is_some_and(|n| n.0 == function)
    };
    let sum = |of: fn(&Path) -> Amount| {
        process.paths.iter().filter(fits).map(of).fold(Amount::default(), Amount::plus)
    };
    (sum(|path| path.allocated), sum(|path| path.freed))
}

/// Makes a shared library of C code, which may need others that were made before.
pub fn library(dir: &Dir, name: &str, source: &str, needs: &[&File]) -> PathBuf {
    let (source, library) =
        (dir.file(&format!("{name}.c"), source), dir.join(&format!("{name}.so")));
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-fno-builtin", "-Wl,--no-as-needed", "-o"])
        .arg(&library)
        .arg(source);
    let output = cc.args(needs).arg("-ldl").output().unwrap();
    assert!(output.status.success(), "{cc:?}: {}", String::from_utf8_lossy(&output.stderr));
    library
}

/// As `asked` of malloc, of requests that no object of an interpreter makes there: 64 KiB and more.
pub fn large(process: &Process, function: &str) -> (Amount, Amount) {
    let class = strandline_capture::layout::size_class(65_536) + 1;
    let fits = |path: &&Path| {
        let first = names(process, path).first().is_some_and(|n| n.0 == function);
        let large: u32 = path.sizes.iter().skip(class).sum();
        first && path.domain == Domain::Malloc && large > 0 && {
            let small: u32 = path.sizes.iter().take(class).sum();
            assert_eq!(small, 0, "{function} asks malloc for small blocks as well");
            true
        }
    };
    let sum = |of: fn(&Path) -> Amount| {
        process.paths.iter().filter(fits).map(of).fold(Amount::default(), Amount::plus)
    };
    (sum(|path| path.allocated), sum(|path| path.freed))
}

/// A program that waits for a line goes on, with no more room for files: it notices nothing,
/// strandline says that the last profile stays and ends with `code`.
pub fn ends_without_room(mut child: Child, code: i32) {
    let none = libc::rlimit { rlim_cur: 100, rlim_max: 100 };
    // SAFETY: prlimit(2) of a child of this process, which has not been waited for.
    let status = unsafe {
        let pid = child.id() as libc::pid_t;
        libc::prlimit(pid, libc::RLIMIT_FSIZE, &none, std::ptr::null_mut())
    };
    assert_eq!(status, 0);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.stdout, b"started and done");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(code), "{said}");
    let line = said.lines().find(|line| line.contains("out.strand: the profile can't"));
    assert!(line.is_some_and(|line| line.contains("stays")), "{said}");
}
