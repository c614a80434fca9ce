//! What is to be started: the interpreter, found as the user's shell would find it, and whether
//! the agent can be preloaded into it.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::cli::Program;
use crate::elf::{self, Kind};
use crate::error::Error;

/// A program that can be started.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// The file to execute, with a slash in its name.
    pub file: PathBuf,
    /// All words of its command line, its own name as the user wrote it first.
    pub arguments: Vec<OsString>,
}

/// What the search depends on.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// `PATH`.
    pub path: Option<OsString>,
    /// `VIRTUAL_ENV`.
    pub virtual_env: Option<OsString>,
}

impl Surroundings {
    /// This process's own.
    pub fn of_this_process() -> Surroundings {
        let set = |name| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
        Surroundings { path: set("PATH"), virtual_env: set("VIRTUAL_ENV") }
    }
}

/// Where programs are looked for if `PATH` is not set (confstr's `_CS_PATH`).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Finds what `program` needs and checks it; nothing is started.
pub fn find(
    program: &Program,
    python: Option<&Path>,
    around: &Surroundings,
) -> Result<Target, Error> {
    let (file, name, mut own): (PathBuf, OsString, Vec<OsString>) = match program {
        Program::Command(name, _) => (lookup(name, around)?, name.clone(), vec![]),
        _ => {
            let (file, name) = interpreter(python, around)?;
            (file, name, vec![])
        }
    };
    match program {
        Program::Script(script, _) => {
            check_script(script)?;
            own.push(script.clone());
        }
        Program::Module(module, _) => own.extend(["-m".into(), module.clone()]),
        Program::Code(code, _) => own.extend(["-c".into(), code.clone()]),
        Program::Command(..) => {}
    }
    let may_be_plain_text = matches!(program, Program::Command(..));
    check_executable(&file, around, may_be_plain_text)?;
    let (Program::Script(_, rest)
    | Program::Module(_, rest)
    | Program::Code(_, rest)
    | Program::Command(_, rest)) = program;
    let arguments = [name].into_iter().chain(own).chain(rest.iter().cloned()).collect();
    Ok(Target { file, arguments })
}

/// The interpreter's file, and the name to call it by.
fn interpreter(python: Option<&Path>, around: &Surroundings) -> Result<(PathBuf, OsString), Error> {
    if let Some(given) = python {
        return Ok((lookup(given.as_os_str(), around)?, given.into()));
    }
    if let Some(env) = &around.virtual_env {
        let file = Path::new(env).join("bin/python");
        if is_executable(&file) {
            return Ok((file.clone(), file.into()));
        }
    }
    for name in ["python3", "python"] {
        if let Ok(file) = lookup(OsStr::new(name), around) {
            return Ok((file, name.into()));
        }
    }
    Err(Error::NoPython)
}

/// The file that a shell would run for `name`.
fn lookup(name: &OsStr, around: &Surroundings) -> Result<PathBuf, Error> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match std::fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::ProgramMissing(path)),
            Err(e) => Err(Error::Start(path, e)),
            Ok(m) if m.is_dir() => Err(Error::ProgramDirectory(path)),
            Ok(_) if is_executable(&path) => Ok(path),
            Ok(_) => Err(Error::NotExecutable(path)),
        };
    }
    let mut refused = None;
    let path = around.path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH));
    for dir in path.as_bytes().split(|b| *b == b':') {
        // An empty entry is the current directory.
        let dir = if dir.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(dir) };
        let file = Path::new(dir).join(name);
        if !name.is_empty() && is_file(&file) {
            if is_executable(&file) {
                return Ok(file);
            }
            refused.get_or_insert(file);
        }
    }
    Err(refused.map_or_else(|| Error::CommandNotFound(name.into()), Error::NotExecutable))
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m: Metadata| m.is_file())
}

/// True for a file that this process may execute.
fn is_executable(path: &Path) -> bool {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: access(2) with a C string that outlives the call.
    is_file(path) && unsafe { libc::access(name.as_ptr(), libc::X_OK) } == 0
}

/// Anything that Python can run by its name: a file, or a directory with a main program.
fn check_script(script: &OsStr) -> Result<(), Error> {
    if script == "-" {
        return Ok(());
    }
    let path = PathBuf::from(script);
    let meta = match std::fs::metadata(&path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::ScriptMissing(path)),
        Err(e) => return Err(Error::ScriptUnreadable(path, e)),
    };
    if meta.is_dir() {
        let main = ["__main__.py", "__main__.pyc"];
        if main.iter().any(|m| path.join(m).exists()) {
            return Ok(());
        }
        return Err(Error::ScriptDirectory(path));
    }
    // A pipe (`<(...)`) can be read once only, by Python.
    if meta.is_file() {
        File::open(&path).map_err(|e| Error::ScriptUnreadable(path, e))?;
    }
    Ok(())
}

/// Checks that the agent can be preloaded into `file`, or into what runs it if it is a script.
fn check_executable(file: &Path, around: &Surroundings, text: bool) -> Result<(), Error> {
    // A file that may be executed but not read is taken on trust.
    let Ok(open) = File::open(file) else { return Ok(()) };
    let mut head = [0u8; 256];
    let n = open.read_at(&mut head, 0).unwrap_or(0);
    let head = head.get(..n).unwrap_or(&[]);
    if head.starts_with(b"#!") {
        if let Some(runs) = shebang(head).and_then(|name| lookup(&name, around).ok()) {
            if let Ok(open) = File::open(&runs) {
                // One level: a script that is run by a script is rare, and only means that
                // the error comes later.
                return match elf::kind(&open) {
                    Ok(kind) => judge(&runs, kind, true),
                    Err(_) => Ok(()),
                };
            }
        }
        return Ok(());
    }
    // The shell runs a file without `#!` as its own script.
    let looks_like_text = text && !head.is_empty() && !head.contains(&0);
    match elf::kind(&open) {
        Ok(kind) => judge(file, kind, looks_like_text),
        Err(_) => Ok(()),
    }
}

fn judge(file: &Path, kind: Kind, may_be_text: bool) -> Result<(), Error> {
    let file = file.to_owned();
    match kind {
        Kind::Dynamic => Ok(()),
        Kind::NotElf if may_be_text => Ok(()),
        Kind::NotElf => Err(Error::NotAProgram(file)),
        Kind::Static => Err(Error::Static(file)),
        Kind::Musl => Err(Error::Musl(file)),
        Kind::Other(name) => Err(Error::Architecture(file, name, elf::HERE)),
    }
}

/// The program that runs a script which starts with `head`; behind `/usr/bin/env`, the one that
/// env would look up.
fn shebang(head: &[u8]) -> Option<OsString> {
    let line = head.get(2..)?.split(|b| *b == b'\n').next()?;
    let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
    let first = words.next()?;
    let mut found = first;
    if first.ends_with(b"/env") {
        found = words.find(|w| !w.starts_with(b"-") && !w.contains(&b'='))?;
    }
    Some(OsStr::from_bytes(found).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Program as P;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of one test's own.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let unique = format!("strandline-test-{name}-{}", std::process::id());
            let dir = std::env::temp_dir().join(unique);
            fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }

        fn file(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn script(path: &Path) -> P {
        P::Script(path.into(), vec!["--flag".into()])
    }

    fn message(r: Result<Target, Error>) -> String {
        let text = r.unwrap_err().to_string();
        assert!(!text.contains('\n'));
        text
    }

    #[test]
    fn the_interpreter_comes_from_option_venv_or_path() {
        let s = Scratch::new("interpreter");
        let sh = b"#!/bin/sh\n";
        let py = s.file("bin/python", sh, 0o755);
        let py3 = s.file("bin/python3", sh, 0o755);
        let venv = s.file("venv/bin/python", sh, 0o755);
        let a = s.file("a.py", b"", 0o644);
        let mut around = Surroundings { path: Some(s.0.join("bin").into()), virtual_env: None };
        let t = find(&script(&a), None, &around).unwrap();
        assert_eq!(t.file, py3);
        assert_eq!(t.arguments, ["python3".into(), OsString::from(&a), "--flag".into()]);
        fs::remove_file(&py3).unwrap();
        let t = find(&P::Code("pass".into(), vec![]), None, &around).unwrap();
        assert_eq!(
            (t.file, t.arguments),
            (py.clone(), ["python", "-c", "pass"].map(Into::into).into())
        );
        around.virtual_env = Some(s.0.join("venv").into());
        let t = find(&P::Module("m".into(), vec![]), None, &around).unwrap();
        assert_eq!(t.arguments, [venv.clone().into(), "-m".into(), OsString::from("m")]);
        assert_eq!(t.file, venv);
        let t = find(&script(&a), Some(Path::new("python")), &around).unwrap();
        assert_eq!(t.file, py);
        around = Surroundings { path: Some("/nowhere".into()), virtual_env: Some("/none".into()) };
        assert!(matches!(find(&script(&a), None, &around), Err(Error::NoPython)));
    }

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        let s = Scratch::new("commands");
        let first = s.file("one/tool", b"#!/bin/sh\n", 0o644);
        let second = s.file("two/tool", b"echo no shebang\n", 0o755);
        let path = format!("{0}/one:{0}/two", s.0.display());
        let around = Surroundings { path: Some(path.into()), virtual_env: None };
        let command = P::Command("tool".into(), vec!["x".into()]);
        let t = find(&command, None, &around).unwrap();
        assert_eq!((t.file, t.arguments), (second.clone(), ["tool", "x"].map(Into::into).into()));
        fs::remove_file(&second).unwrap();
        assert!(message(find(&command, None, &around)).starts_with(first.to_str().unwrap()));
        let none = P::Command("no-such-tool".into(), vec![]);
        assert!(message(find(&none, None, &around)).starts_with("no-such-tool: no such command"));
        let gone = P::Command("./no/such".into(), vec![]);
        assert!(message(find(&gone, None, &around)).contains("no such program"));
        let dir = P::Command(s.0.clone().into(), vec![]);
        assert!(message(find(&dir, None, &around)).contains("a directory"));
    }

    #[test]
    fn what_cannot_be_looked_into_is_refused_before_it_runs() {
        let s = Scratch::new("refused");
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        let fixed = s.file("static", &elf, 0o755);
        elf[18] = 243;
        let other = s.file("other", &elf, 0o755);
        let garbage = s.file("garbage", b"\x01\x00\x02", 0o755);
        let text = s.file("text", b"echo\n", 0o755);
        let a = s.file("a.py", b"", 0o644);
        let around = Surroundings::default();
        let with = |p: &Path| message(find(&script(&a), Some(p), &around));
        assert!(with(&fixed).contains("can't see into a statically linked"));
        assert!(with(&other).contains("riscv"));
        assert!(with(&garbage).contains("neither a program"));
        assert!(with(&text).contains("neither a program"));
        let run = s.file("run", format!("#!{}\n", fixed.display()).as_bytes(), 0o755);
        assert!(with(&run).contains("statically linked"));
        let sh = s.file("sh", b"#!/usr/bin/env -S FOO=1 sh -e\n", 0o755);
        assert!(find(&script(&a), Some(&sh), &around).is_ok());
    }

    #[test]
    fn scripts() {
        let s = Scratch::new("scripts");
        let py = s.file("py", b"#!/bin/sh\n", 0o755);
        let around = Surroundings::default();
        let check = |p: &Path| find(&script(p), Some(&py), &around);
        assert!(message(check(Path::new("/no/such.py"))).contains("/no/such.py: there is no such"));
        assert!(message(check(&s.0)).contains("__main__.py"));
        s.file("__main__.py", b"", 0o644);
        assert!(check(&s.0).is_ok());
        assert!(check(Path::new("-")).is_ok());
        assert!(check(Path::new("/dev/null")).is_ok());
        let below_a_file = s.file("x.py", b"", 0o644).join("y.py");
        assert!(message(check(&below_a_file)).contains("can't be read"));
    }

    #[test]
    fn shebangs() {
        let of = |line: &str| shebang(line.as_bytes()).unwrap_or_default();
        assert_eq!(of("#!/usr/bin/python3 -u\nimport"), "/usr/bin/python3");
        assert_eq!(of("#! /usr/bin/env python3\n"), "python3");
        assert_eq!(of("#!/usr/bin/env -S A=b python3 -u\n"), "python3");
        assert_eq!(of("#!\n"), "");
        assert_eq!(of("#!/usr/bin/env\n"), "");
    }
}
