//! Bad input: a one-line error that names the thing, with strandline's own exit code, and the
//! program is never broken by a failure of strandline's.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::*;

/// strandline with these words, in the folder of `dir`.
fn command(dir: &Dir, words: &[&str]) -> Command {
    let mut command = Command::new(STRANDLINE);
    clean(&mut command);
    command.current_dir(dir.path()).arg("run").args(words);
    command
}

/// Fails before the program starts: one line, with every one of `names` in it.
fn refused(ran: &Ran, names: &[&str]) {
    assert_eq!(ran.code, Some(125), "{ran:#?}");
    assert_eq!(ran.stdout, "", "{ran:#?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:#?}");
    assert!(ran.stderr.starts_with("strandline: "), "{ran:#?}");
    for name in names {
        assert!(ran.stderr.contains(name), "no {name} in {ran:#?}");
    }
}

fn executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn scripts_that_cant_be_run() {
    let dir = Dir::new();
    let python = pythons()[0].path.to_str().unwrap();
    dir.file("folder/other.py", "");
    std::os::unix::fs::symlink("nowhere", dir.join("dangling.py")).unwrap();
    std::os::unix::fs::symlink("loop.py", dir.join("loop.py")).unwrap();
    dir.file("file.py", "");
    for script in ["missing.py", "folder", "dangling.py", "loop.py", "file.py/x.py", "no/such/x.py"]
    {
        let ran = run(&mut command(&dir, &["--python", python, script]), "");
        refused(&ran, &[script]);
    }
}

/// A file that may not be read: of any user's own, or, for root, who may read everything, as
/// another user.
#[test]
fn unreadable_scripts() {
    let dir = Dir::new();
    let file = dir.file("secret.py", "");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    // SAFETY: geteuid(2) only tells.
    let is_root = unsafe { libc::geteuid() } == 0;
    let binary = std::env::temp_dir().join(format!("strandline-e2e-{}", std::process::id()));
    let mut strandline = if is_root {
        // Somewhere that the other user can get at it.
        std::fs::create_dir(&binary).unwrap();
        std::fs::copy(STRANDLINE, binary.join("strandline")).unwrap();
        std::fs::copy(&file, binary.join("secret.py")).unwrap();
        let mut command = Command::new(binary.join("strandline"));
        command.uid(65_534).gid(65_534).current_dir(&binary);
        std::fs::set_permissions(binary.join("secret.py"), std::fs::Permissions::from_mode(0o000))
            .unwrap();
        clean(&mut command);
        command.args(["run", "--python", "/bin/sh", "secret.py"]);
        command
    } else {
        command(&dir, &["--python", "/bin/sh", "secret.py"])
    };
    let ran = run(&mut strandline, "");
    let _ = std::fs::remove_dir_all(&binary);
    refused(&ran, &["secret.py"]);
}

#[test]
fn interpreters_that_cant_be_run() {
    let dir = Dir::new();
    dir.file("prog.py", "print('no')");
    dir.file("plain", "no program");
    executable(&dir.file("text", "no program either\n"));
    executable(&dir.file("bytes", b"\0\x01\x02"));
    executable(&dir.file("empty", ""));
    std::fs::create_dir(dir.join("folder")).unwrap();
    for name in ["./missing", "./plain", "./text", "./bytes", "./folder", "./empty"] {
        let ran = run(&mut command(&dir, &["--python", name, "prog.py"]), "");
        refused(&ran, &[name]);
    }
    for name in ["no-such-command", "./missing", "./plain", "./bytes", "./folder"] {
        let ran = run(&mut command(&dir, &["--", name, "prog.py"]), "");
        refused(&ran, &[name]);
    }
    let mut nothing = command(&dir, &["prog.py"]);
    let ran = run(nothing.env("PATH", dir.join("folder")), "");
    refused(&ran, &["python"]);
}

/// A 64-bit little-endian ELF header of `machine`, with program headers of these types; the
/// interpreter of the dynamic loader in front, if there is one.
fn elf(class: u8, machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0];
    file.resize(16, 0);
    file.extend(2u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(0x40_0000u64.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_INTERP is 3, PT_LOAD 1.
    let text = loader.map(|l| [l.as_bytes(), b"\0"].concat()).unwrap_or_default();
    let kind: u32 = if loader.is_some() { 3 } else { 1 };
    file.extend(kind.to_le_bytes());
    file.extend(4u32.to_le_bytes());
    for word in [120u64, 0, 0, text.len() as u64, text.len() as u64, 1] {
        file.extend(word.to_le_bytes());
    }
    file.extend(text);
    file
}

#[test]
fn programs_of_another_kind() {
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    const S390: u16 = 22;
    let (own, other) =
        if cfg!(target_arch = "aarch64") { (AARCH64, X86_64) } else { (X86_64, AARCH64) };
    let dir = Dir::new();
    let glibc = Some("/lib64/ld-linux-x86-64.so.2");
    let cases = [
        ("other", elf(2, other, glibc), ""),
        ("odd", elf(2, S390, glibc), ""),
        ("narrow", elf(1, own, glibc), ""),
        ("static", elf(2, own, None), "static"),
        ("musl", elf(2, own, Some("/lib/ld-musl-x86_64.so.1")), "musl"),
    ];
    for (name, bytes, word) in cases {
        executable(&dir.file(name, bytes));
        let name = format!("./{name}");
        for words in [&["--python", &name, "-c", "1"][..], &["--", &name]] {
            refused(&run(&mut command(&dir, words), ""), &[&name, word]);
        }
    }
}

#[test]
fn usage() {
    let dir = Dir::new();
    for words in [
        &[][..],
        &["--json"],
        &["-m"],
        &["-c"],
        &["--"],
        &["--no-such-option", "prog.py"],
        &["--top", "many", "prog.py"],
        &["--function", "", "prog.py"],
    ] {
        let ran = run(&mut command(&dir, words), "");
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{words:?}: {ran:#?}");
        assert!(!ran.stderr.is_empty());
    }
    let ran = run(&mut command(&dir, &["--help"]), "");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout.contains("--no-follow"));
}

#[test]
fn reports_that_cant_be_written() {
    each(|python| {
        let path = python.path.to_str().unwrap();
        let dir = Dir::new();
        dir.file("there.json", "precious");
        dir.file("file", "");
        for out in ["no/such/folder/r.json", "there.json", "file/r.json", ".", "r/"] {
            let words = ["-o", out, "--python", path, "-c", "open('ran', 'w')"];
            refused(&run(&mut command(&dir, &words), ""), &[out]);
            assert!(!dir.join("ran").exists(), "the program ran");
        }
        assert_eq!(std::fs::read_to_string(dir.join("there.json")).unwrap(), "precious");
        // Nothing is left of a run that never started.
        let words = ["-o", "new.json", "--python", path, "missing.py"];
        refused(&run(&mut command(&dir, &words), ""), &["missing.py"]);
        assert!(!dir.join("new.json").exists());
    });
}

/// The report is lost; the program is not, and its code counts.
#[test]
fn a_closed_stderr() {
    each(|python| {
        let path = python.path.to_str().unwrap();
        let dir = Dir::new();
        let program = "import os, sys; os.write(1, b'out'); sys.exit(int(sys.argv[1]))";
        for (code, end) in [("0", 125), ("3", 3)] {
            let mut shell = Command::new("sh");
            clean(&mut shell);
            shell.current_dir(dir.path()).args(["-c", "exec \"$@\" 2>&-", "sh", STRANDLINE, "run"]);
            shell.args(["--python", path, "-c", program, code]);
            let ran = run(&mut shell, "");
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(end), "out"));
            // A file for the report: nothing is missing.
            let out = dir.join(&format!("r{code}.json"));
            let mut shell = Command::new("sh");
            clean(&mut shell);
            shell.current_dir(dir.path()).args(["-c", "exec \"$@\" 2>&-", "sh", STRANDLINE, "run"]);
            shell.arg("-o").arg(&out).args(["--python", path, "-c", program, code]);
            let ran = run(&mut shell, "");
            assert_eq!((ran.code, ran.stdout.as_str()), (code.parse().ok(), "out"));
            assert!(out.exists());
        }
    });
}

/// Nothing is needed in a temporary directory, and nothing is left in one.
#[test]
fn temporary_directories() {
    each(|python| {
        let source = "import os\nopen('found', 'w').write(' '.join(os.listdir(os.environ['T'])))\n";
        let dir = Dir::new();
        let read_only = dir.join("read-only");
        std::fs::create_dir(&read_only).unwrap();
        std::fs::set_permissions(&read_only, std::fs::Permissions::from_mode(0o555)).unwrap();
        let full = "/dev/full";
        for tmp in [read_only.to_str().unwrap(), "/nonexistent", full] {
            let shown = read_only.to_str().unwrap();
            let job = Job::script(python, source).env("TMPDIR", tmp).env("T", shown);
            job.report();
            assert_eq!(std::fs::read_to_string(job.dir.join("found")).unwrap(), "");
        }
    });
}

/// Limits that the program would have without strandline stay; those that strandline itself runs
/// into end in an error or in a report.
#[test]
fn limits() {
    each(|python| {
        let program = "import resource as r; print([r.getrlimit(l) for l in \
                       (r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE, r.RLIMIT_AS)])";
        let path = python.path.to_str().unwrap();
        let dir = Dir::new();
        for limit in ["ulimit -S -f 1000", "ulimit -n 64", "ulimit -S -c 0"] {
            let shell = |first: &[&str]| {
                let mut shell = Command::new("sh");
                clean(&mut shell);
                shell.current_dir(dir.path()).arg("-c").arg(format!("{limit}; exec \"$@\""));
                shell.arg("sh").args(first).args(["-c", program]);
                run(&mut shell, "")
            };
            let plain = shell(&[path]).ok();
            let ours = shell(&[STRANDLINE, "run", "--python", path]).ok();
            assert_eq!(ours.stdout, plain.stdout, "{limit}");
            assert!(ours.stderr.contains("Whole program"), "{limit}: {ours:#?}");
        }
    });
}
