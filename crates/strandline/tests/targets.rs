//! Targets of the census that are out of the ordinary: containers, embedded Pythons, several in
//! one process, other allocators, deleted executables, the kernel's own core files.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::standing::*;
use common::*;

const POPULATION: &str = "
class Plain(object):
    def __init__(self):
        self.a = 1
plain = [Plain() for _ in range(12345)]
floats = [i + 0.5 for i in range(23456)]
";

fn has_population(census: &Value) {
    assert_eq!(count(census, "__main__.Plain"), 12345);
    assert!((23456..23600).contains(&count(census, "float")), "{}", count(census, "float"));
}

/// What `command` prints, which has to end well.
fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn ask(python: &Python, expression: &str) -> PathBuf {
    let code = format!("import sys, sysconfig, os; print({expression})");
    output_of(Command::new(&python.path).args(["-c", &code])).trim().into()
}

/// The child of a process, once there is one.
fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("it has a child")
}

#[test]
fn a_container_seen_from_its_host() {
    // Without the right to make namespaces there is no container to look at.
    let may = Command::new("unshare").args(["-r", "-m", "-p", "-f", "true"]).status();
    let may = may.is_ok_and(|status| status.success());
    assert!(may || std::env::var_os("CI").is_none(), "unshare(1) can't make namespaces");
    if !may {
        eprintln!("unshare(1) can't make namespaces: containers are NOT looked at");
        return;
    }
    each(|python| {
        let dir = Dir::new();
        dir.file("program.py", program(POPULATION));
        let inside = dir.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let prefix = ask(python, "getattr(sys, 'base_prefix', sys.prefix)");
        let name = ask(python, "os.path.realpath(sys.executable)");
        let name = name.strip_prefix(&prefix).unwrap().to_owned();
        // Its files have names that mean nothing outside, and it is process 1 in there.
        let script = "mount --bind \"$1\" \"$2\" && exec \"$2/$3\" \"$4\"";
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", script]);
        command.args(["sh".as_ref(), prefix.as_path(), &inside, &name]);
        command.arg(dir.path().join("program.py"));
        let s = Standing::of(command, dir);
        let child = child_of(s.pid());
        let s = s.look_at(child);
        let census = s.census();
        check(&s, &census, 0.001);
        has_population(&census);
    });
}

#[test]
fn an_executable_that_was_deleted() {
    each(|python| {
        let dir = Dir::new();
        let copy = dir.path().join("python");
        std::fs::copy(ask(python, "os.path.realpath(sys.executable)"), &copy).unwrap();
        let mut command = Command::new(&copy);
        command.env("PYTHONHOME", ask(python, "getattr(sys, 'base_prefix', sys.prefix)"));
        command.arg(dir.file("program.py", program(POPULATION)));
        let s = Standing::of(command, dir);
        std::fs::remove_file(&copy).unwrap();
        let census = s.census();
        check(&s, &census, 0.001);
        has_population(&census);
    });
}

/// A program that loads a libpython for each three arguments, and runs code in it.
const HOST: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int i = 1; i + 2 < argc; i += 3) {
        setenv("PYTHONHOME", argv[i + 1], 1);
        void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
        void (*start)(int) = (void (*)(int))dlsym(library, "Py_InitializeEx");
        int (*run)(const char *) = (int (*)(const char *))dlsym(library, "PyRun_SimpleString");
        start(0);
        if (run(argv[i + 2])) return 1;
    }
    puts("ready");
    fflush(stdout);
    pause();
}
"#;

fn host(dir: &Dir) -> PathBuf {
    let (source, host) = (dir.file("host.c", HOST), dir.path().join("host"));
    output_of(Command::new("cc").arg(&source).arg("-o").arg(&host).arg("-ldl"));
    host
}

/// The shared library of an interpreter, if it has one.
fn library(python: &Python) -> Option<PathBuf> {
    let name =
        "os.path.join(sysconfig.get_config_var('LIBDIR'), sysconfig.get_config_var('INSTSONAME'))";
    Some(ask(python, name)).filter(|path| path.to_string_lossy().contains(".so") && path.exists())
}

fn add(command: &mut Command, python: &Python, library: &Path, code: &str) {
    command.arg(library).arg(ask(python, "getattr(sys, 'base_prefix', sys.prefix)")).arg(code);
}

#[test]
fn a_python_embedded_in_another_program() {
    each(|python| {
        let Some(library) = library(python) else { return };
        let dir = Dir::new();
        let mut command = Command::new(host(&dir));
        add(&mut command, python, &library, POPULATION);
        let s = Standing::of(command, dir);
        let census = s.census();
        check(&s, &census, 0.001);
        has_population(&census);
    });
}

#[test]
fn two_pythons_in_one_process() {
    let with_library: Vec<_> = pythons()
        .iter()
        .filter(|p| p.version >= (3, 8))
        .filter_map(|p| Some((p, library(p)?)))
        .collect();
    for two in with_library.windows(2) {
        let dir = Dir::new();
        let mut command = Command::new(host(&dir));
        let code =
            |name: &str, n: u32| format!("class {name}: pass\nx = [{name}() for _ in range({n})]");
        add(&mut command, two[0].0, &two[0].1, &code("First", 12345));
        add(&mut command, two[1].0, &two[1].1, &code("Second", 23456));
        let s = Standing::of(command, dir);
        let census = s.census();
        check(&s, &census, 0.001);
        assert_eq!(census["interpreters"].as_array().unwrap().len(), 2, "{census}");
        assert_eq!(count(&census, "__main__.First"), 12345);
        assert_eq!(count(&census, "__main__.Second"), 23456);
    }
}

#[test]
fn allocators_that_the_environment_chose() {
    each_of(
        |version| version >= (3, 6),
        |python| {
            for allocator in ["malloc", "debug", "malloc_debug"] {
                let dir = Dir::new();
                let path = dir.file("program.py", program(POPULATION));
                // `of` takes the variable out of the environment: the shell puts it in.
                let mut command = Command::new("env");
                command.arg(format!("PYTHONMALLOC={allocator}")).arg(&python.path).arg(path);
                let s = Standing::of(command, dir);
                let census = s.census();
                assert_eq!(u(&census, "rss_bytes"), s.rss(), "{allocator}");
                let unnamed = u(&census, "unnamed_bytes");
                assert!(unnamed * 1000 <= s.rss(), "{allocator}: {unnamed} without a name");
                has_population(&census);
            }
        },
    );
}

#[test]
fn a_core_file_of_the_kernel() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let pattern = pattern.trim();
    if pattern.starts_with('|') || pattern.contains('/') || pattern.contains('%') {
        eprintln!("the kernel writes core files to {pattern:?}: its own are NOT looked at");
        return;
    }
    each(|python| {
        let dir = Dir::new();
        let shared = "import mmap\nm = mmap.mmap(-1, 8 << 20)\nm.write(b'x' * (8 << 20))\n";
        let path = dir.file("program.py", program(&format!("{POPULATION}{shared}")));
        let mut command = Command::new("sh");
        // Not to be dumped: shared anonymous memory (core(5), bit 1).
        let script = "ulimit -c unlimited && echo 0x31 > /proc/self/coredump_filter && exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(&python.path).arg(path);
        command.current_dir(dir.path());
        let s = Standing::of(command, dir);
        let census = s.census();
        output_of(Command::new("kill").args(["-ABRT", &s.pid().to_string()]));
        let mut cores = Vec::new();
        for _ in 0..600 {
            let entries = std::fs::read_dir(s.dir.path()).unwrap().flatten().map(|e| e.path());
            cores = entries
                .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("core"))
                .collect();
            let state = std::fs::read_to_string(format!("/proc/{}/stat", s.pid())).unwrap();
            if !cores.is_empty() && state.contains(") Z ") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let mut command = Command::new(STRANDLINE);
        let text = output_of(command.args(["census", "--json", "--core"]).arg(&cores[0]));
        let dumped: Value = serde_json::from_str(&text).unwrap();
        has_population(&dumped);
        assert_eq!(dumped["size_classes"], census["size_classes"]);
        assert_eq!(dumped["left_out_bytes"], 8 << 20);
    });
}

#[test]
fn a_process_that_ended_is_said_to_have() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id().to_string();
    std::thread::sleep(std::time::Duration::from_millis(300));
    // It is a zombie until it is waited for.
    let output = Command::new(STRANDLINE).args(["census", &pid]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    child.wait().unwrap();
    assert_eq!(output.status.code(), Some(125), "{errors}");
    assert!(errors.contains(&pid) && errors.lines().count() == 1, "{errors}");
}

#[test]
fn a_copy_that_does_not_fit_goes_to_disk() {
    let python = &pythons()[pythons().len() - 1];
    let s = Standing::start(python, POPULATION);
    let pid = s.pid().to_string();
    let census = |more: &[&str]| -> Value {
        let mut command = Command::new(STRANDLINE);
        let text = output_of(command.args(["census", "--json", &pid]).args(more));
        serde_json::from_str(&text).unwrap()
    };
    let (on_disk, in_memory) = (census(&["--memory", "1"]), census(&[]));
    assert_eq!(on_disk["copied_to_disk"], true);
    assert_eq!(in_memory["copied_to_disk"], false);
    check(&s, &on_disk, 0.001);
    for part in ["arenas", "size_classes", "rss_bytes", "stranded_bytes", "malloc"] {
        assert_eq!(on_disk[part], in_memory[part], "{part}");
    }
    has_population(&on_disk);
    let mut command = Command::new(STRANDLINE);
    let text = output_of(command.args(["census", "--memory", "1", &pid]));
    assert!(text.contains("copied to disk, since memory was short"), "{text}");
}
