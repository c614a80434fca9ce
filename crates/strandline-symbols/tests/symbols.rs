//! Compared with binutils: `addr2line` and `nm`.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use strandline_profile::{Builder, Frame, FrameKind, Module, Process, Profile};
use strandline_symbols::{symbolise, LookUpError, Symbol, Symbolizer};

fn directory(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn compile(dir: &Path, source: &str, flags: &[&str]) -> PathBuf {
    let library = dir.join(format!("lib{source}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native").join(source);
    let mut all = vec!["-shared", "-fPIC", "-Wl,--build-id", "-o", text(&library), text(&source)];
    all.extend(flags);
    run(if text(&source).ends_with("cc") { "c++" } else { "cc" }, &all);
    library
}

fn build_id(library: &Path) -> Vec<u8> {
    let notes = run("readelf", &["-n", text(library)]);
    let Some((_, id)) = notes.split_once("Build ID: ") else { return Vec::new() };
    let id = id.split_whitespace().next().unwrap();
    (0..id.len()).step_by(2).map(|i| u8::from_str_radix(&id[i..i + 2], 16).unwrap()).collect()
}

/// Functions as `nm` has them: address, size, name as in the file.
fn functions(library: &Path, dynamic: bool) -> Vec<(u64, u64, String)> {
    let arguments: &[&str] = if dynamic { &["-S", "-D"] } else { &["-S"] };
    let mut arguments = arguments.to_vec();
    arguments.push(text(library));
    let listed = run("nm", &arguments);
    let lines = listed.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, size, kind, name] = words[..] else { return None };
        let hex = |t| u64::from_str_radix(t, 16).unwrap();
        let name = name.split('@').next()?.to_owned();
        "tTwWi".contains(kind).then(|| (hex(address), hex(size), name))
    });
    lines.collect()
}

/// What `addr2line -i -f -C` says: function, file, line.
fn truth(library: &Path, addresses: &[u64]) -> Vec<Vec<(String, String, u32)>> {
    let mut arguments = vec!["-a".to_owned(), "-i".into(), "-f".into(), "-e".into()];
    arguments.push(text(library).into());
    arguments.extend(addresses.iter().map(|a| format!("{a:#x}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut all: Vec<Vec<_>> = Vec::new();
    let output = run("addr2line", &arguments);
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            all.push(Vec::new());
            continue;
        }
        let place = lines.next().unwrap();
        let place = place.split(" (disc").next().unwrap();
        let (file, number) = place.rsplit_once(':').unwrap();
        let function = addr2line_demangle(line);
        all.last_mut().unwrap().push((function, file.into(), number.parse().unwrap_or(0)));
    }
    all
}

fn addr2line_demangle(name: &str) -> String {
    if name.starts_with("_Z") {
        run("c++filt", &[name]).trim().into()
    } else {
        name.into()
    }
}

/// Names without what demanglers disagree on: blanks, arguments (the crate `cpp_demangle` loses
/// the first one of constructors), and how the standard library's strings are called.
fn plain(name: &str) -> String {
    let name = name.replace("(anonymous namespace)", "anonymous").replace("[abi:cxx11]", "");
    let name = name.split('(').next().unwrap().replace("__cxx11::", "").replace(' ', "");
    name.replace("basic_string<char,std::char_traits<char>,std::allocator<char>>", "string")
}

fn compare(library: &Path, addresses: &[u64]) -> (usize, usize) {
    let id = build_id(library);
    let mut symbolizer = Symbolizer::new(&[]);
    let (mut same, mut inlined) = (0, 0);
    for (address, truth) in addresses.iter().zip(truth(library, addresses)) {
        let ours = symbolizer.look_up(text(library), &id, *address).unwrap();
        let shown = |s: &Symbol| (plain(&s.function), s.line);
        let ours: Vec<_> = ours.iter().map(shown).collect();
        let theirs: Vec<_> = truth.iter().map(|(f, _, l)| (plain(f), *l)).collect();
        if ours == theirs {
            same += 1;
            inlined += usize::from(ours.len() > 1);
        } else {
            println!("{address:#x}: ours {ours:?}, addr2line's {theirs:?}");
        }
    }
    (same, inlined)
}

#[test]
fn c_and_cpp_with_debug_information() {
    let dir = directory("dwarf");
    for (source, flags) in [
        ("sample.c", &["-g", "-O2"][..]),
        ("sample.c", &["-gdwarf-4", "-O0"]),
        ("sample.cc", &["-g", "-O2"]),
        ("sample.cc", &["-g", "-O0", "-gz"]),
    ] {
        let library = compile(&dir, source, flags);
        let mut addresses = Vec::new();
        for (start, size, name) in functions(&library, false) {
            let ours = ["visible", "hidden", "second", "entry"].contains(&name.as_str());
            if ours || name.contains("outer") {
                addresses.extend(start..start + size);
            }
        }
        addresses.sort();
        addresses.dedup();
        let (same, inlined) = compare(&library, &addresses);
        println!("{source} {flags:?}: {same} of {}, {inlined} with inlined", addresses.len());
        assert!(same * 100 >= addresses.len() * 98, "{source} {flags:?}");
        assert!(inlined > 0 || flags.contains(&"-O0"));
    }
}

#[test]
fn the_interpreter_and_the_c_library() {
    let home = PathBuf::from(std::env::var("HOME").unwrap());
    let python = home.join(".pyenv/versions/3.11.7/lib/libpython3.11.so.1.0");
    if python.exists() {
        let all = functions(&python, false);
        let step = (all.len() / 300).max(1);
        let addresses: Vec<u64> = all.iter().step_by(step).map(|(a, s, _)| a + s / 2).collect();
        let (same, _) = compare(&python, &addresses);
        println!("libpython: {same} of {}", addresses.len());
        assert!(same * 100 >= addresses.len() * 95);
    }
    let libc = Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6");
    if libc.exists() {
        let (id, all) = (build_id(libc), functions(libc, true));
        // Internal names are in the separate debug file, where that is installed.
        let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
        let debug = format!("/usr/lib/debug/.build-id/{}/{}.debug", &hex[..2], &hex[2..]);
        let debug = Path::new(&debug);
        let (mut symbolizer, mut same) = (Symbolizer::new(&[]), 0);
        for (start, size, _) in &all {
            let found = symbolizer.look_up(text(libc), &id, start + size / 2).unwrap();
            let name = &found.last().expect("a name").function;
            // Any of the names that cover the address, as the innermost range may be another.
            let middle = start + size / 2;
            let covers = |(a, s, _): &&(u64, u64, String)| (*a..a + s).contains(&middle);
            let exported = all.iter().filter(covers).any(|(_, _, n)| n == name);
            let internal = || {
                debug.exists() && truth(debug, &[middle])[0].last().is_some_and(|t| t.0 == *name)
            };
            if exported || internal() {
                same += 1;
            } else {
                println!("{name} at {middle:#x}: {found:?}");
            }
        }
        println!("libc: {same} of {}", all.len());
        assert!(same * 100 >= all.len() * 99);
        assert!(all.len() > 1000);
        let malloc = all.iter().find(|f| f.2 == "malloc").unwrap();
        let found = symbolizer.look_up(text(libc), &id, malloc.0 + 4).unwrap();
        assert_eq!(found[0].function, "malloc");
        // Between functions that have names nobody is guessed.
        assert_eq!(symbolizer.look_up(text(libc), &id, 0x10).unwrap(), []);
    }
}

#[test]
fn separate_debug_files_and_other_machines() {
    let dir = directory("separate");
    let library = compile(&dir, "sample.c", &["-g", "-O2"]);
    let (id, all) = (build_id(&library), functions(&library, false));
    let hidden = all.iter().find(|f| f.2 == "hidden").unwrap().0 + 1;
    let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
    let debug = dir.join("symbols/.build-id").join(&hex[..2]).join(format!("{}.debug", &hex[2..]));
    std::fs::create_dir_all(debug.parent().unwrap()).unwrap();
    run("objcopy", &["--only-keep-debug", text(&library), text(&debug)]);
    run("strip", &[text(&library)]);
    let path = text(&library);
    assert_eq!(Symbolizer::new(&[]).look_up(path, &id, hidden).unwrap(), []);
    let dirs = [dir.join("symbols")];
    let found = Symbolizer::new(&dirs).look_up(path, &id, hidden).unwrap();
    assert_eq!(found[0].function, "hidden");
    assert!(found[0].file.ends_with("sample.c") && found[0].line > 0);
    // The library isn't on this machine: the debug file is enough, or a copy somewhere else.
    let found = Symbolizer::new(&dirs).look_up("/not/here/lib.so", &id, hidden).unwrap();
    assert_eq!(found[0].function, "hidden");
    let visible = all.iter().find(|f| f.2 == "visible").unwrap().0 + 1;
    let found = Symbolizer::new(std::slice::from_ref(&dir))
        .look_up("/not/here/libsample.c.so", &id, visible)
        .unwrap();
    assert_eq!(found[0].function, "visible");
    let missing = Symbolizer::new(&[]).look_up("/not/here/lib.so", &id, hidden).unwrap_err();
    assert!(matches!(*missing, LookUpError::NotFound { .. }));
    // Another build of the library is in its place.
    let mut other = id.clone();
    other[3] ^= 1;
    let refused = Symbolizer::new(&dirs).look_up(path, &other, hidden).unwrap_err();
    let LookUpError::OtherBuild { recorded, found, .. } = &*refused else { panic!("{refused}") };
    assert_eq!((recorded.len(), found), (hex.len(), &hex));
    assert!(refused.to_string().contains("isn't the file that ran"), "{refused}");
    // A build id was recorded, the file has none; and the other way round.
    let without = compile(&dir, "sample.c", &["-Wl,--build-id=none"]);
    assert!(Symbolizer::new(&[]).look_up(text(&without), &id, hidden).is_err());
    assert!(Symbolizer::new(&[]).look_up(text(&without), &[], visible).is_ok());
    std::fs::write(dir.join("libbroken.so"), b"no library").unwrap();
    let broken = Symbolizer::new(&[]).look_up(text(&dir.join("libbroken.so")), &id, 1).unwrap_err();
    assert!(matches!(*broken, LookUpError::Unreadable { .. }));
}

fn process(library: &Path, id: Vec<u8>, addresses: &[u64]) -> Process {
    let mut b = Builder::new();
    let file = b.string(text(library));
    b.process().modules.push(Module { file, build_id: id });
    let python = b.python_path([("main", "a.py", 3)]);
    for &address in addresses {
        let frame = b.frame(Frame { file, address, kind: FrameKind::Native, ..Frame::default() });
        let node = b.node(python, frame);
        let leaf = b.frame(Frame { line: 7, ..Frame::default() });
        let leaf = b.node(node, leaf);
        for node in [node, leaf] {
            let path = strandline_profile::Path { node, ..Default::default() };
            b.process().paths.push(path);
        }
    }
    b.finish()
}

#[test]
fn a_profile_gets_names() {
    let dir = directory("profile");
    let library = compile(&dir, "sample.c", &["-g", "-O2"]);
    let (id, all) = (build_id(&library), functions(&library, false));
    let (start, size, _) = all.iter().find(|f| f.2 == "visible").unwrap();
    let addresses: Vec<u64> = (*start..start + size).collect();
    let bad = process(Path::new("/not/here.so"), id.clone(), &[1, 2]);
    let good = process(&library, id.clone(), &addresses);
    let mut profile = Profile { processes: vec![good, bad], ..Profile::default() };
    let doubts = symbolise(&mut profile, &[]);
    assert_eq!(doubts.len(), 1, "{doubts:?}");
    assert!(doubts[0].contains("/not/here.so"));
    let process = &profile.processes[0];
    let mut symbolizer = Symbolizer::new(&[]);
    for (i, node) in process.nodes.iter().enumerate().skip(1) {
        assert!((node.parent as usize) < i, "parents stand before children");
    }
    for (i, &address) in addresses.iter().enumerate() {
        let mut names = Vec::new();
        let mut node = process.nodes[process.paths[2 * i].node as usize];
        while node.frame != 0 {
            let frame = process.frames[node.frame as usize];
            names.push((process.strings[frame.function as usize].clone(), frame.line));
            node = process.nodes[node.parent as usize];
        }
        let mut wanted: Vec<_> = symbolizer
            .look_up(text(&library), &id, address)
            .unwrap()
            .into_iter()
            .map(|s| (s.function, s.line))
            .collect();
        wanted.push(("main".into(), 3));
        assert_eq!(names, wanted);
        let leaf = process.nodes[process.paths[2 * i + 1].node as usize];
        assert_eq!(process.frames[leaf.frame as usize].line, 7);
        assert_eq!(leaf.parent, process.paths[2 * i].node);
    }
    let once = profile.clone();
    symbolise(&mut profile, &[]);
    assert_eq!(profile, once, "what has a name is left alone");
}
