//! Compares every layout with the interpreters of this machine.
//!
//! `STRANDLINE_TEST_PYTHONS`: colon-separated executables to use. Without it:
//! those of pyenv and `/usr/bin/python3`. With `CI` set, every supported series
//! has to be there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use strandline_cpython::*;

const CHECK: &str = include_str!("check_layout.py");

/// The series a static table is given for.
const SERIES: [(u8, u8); 9] =
    [(2, 7), (3, 6), (3, 7), (3, 8), (3, 9), (3, 10), (3, 11), (3, 12), (3, 13)];

fn interpreters() -> Vec<PathBuf> {
    if let Some(list) = std::env::var_os("STRANDLINE_TEST_PYTHONS") {
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let mut found = Vec::new();
    if let Some(home) = std::env::var_os("HOME") {
        let versions = PathBuf::from(home).join(".pyenv/versions");
        for entry in std::fs::read_dir(versions).into_iter().flatten().flatten() {
            found.push(entry.path().join("bin/python"));
        }
    }
    found.push(PathBuf::from("/usr/bin/python3"));
    found.retain(|path| path.exists());
    found.sort();
    found
}

fn run(python: &PathBuf, script: &str, args: &[&str]) -> Result<String, String> {
    let mut command = Command::new(python);
    command.args(["-E", "-s", "-c", script]).args(args).env_remove("PYTHONMALLOC");
    let output = command.output().map_err(|error| error.to_string())?;
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {stdout}{}", output.status, stderr.trim()))
}

/// A Python dict of the numbers, by the names `check_layout.py` uses.
#[derive(Default)]
struct Facts(BTreeMap<&'static str, String>);

impl Facts {
    fn put(&mut self, key: &'static str, value: impl Into<u64>) {
        self.0.insert(key, value.into().to_string());
    }

    fn opt<T: Into<u64>>(&mut self, key: &'static str, value: Option<T>) {
        let value = value.map_or_else(|| "None".to_owned(), |value| value.into().to_string());
        self.0.insert(key, value);
    }

    fn literal(&self) -> String {
        let items: Vec<_> = self.0.iter().map(|(key, value)| format!("'{key}': {value}")).collect();
        format!("{{{}}}", items.join(", "))
    }
}

fn facts(layout: &Layout) -> Facts {
    let mut f = Facts::default();
    let python_bool = |value: bool| if value { "True" } else { "False" }.to_owned();
    f.0.insert("sys_monitoring", python_bool(layout.sys_monitoring));
    f.0.insert("names_are_bytes", python_bool(layout.names_are_bytes));

    let t = &layout.tstate;
    let (frame, cframe, cframe_current, direct) = match t.current_frame {
        CurrentFrame::Object { frame } => (Some(frame), None, None, None),
        CurrentFrame::CFrame { cframe, current_frame } => {
            (None, Some(cframe), Some(current_frame), None)
        }
        CurrentFrame::Direct { current_frame } => (None, None, None, Some(current_frame)),
    };
    f.opt("tstate.frame", frame);
    f.opt("tstate.cframe", cframe);
    f.opt("tstate.cframe_current", cframe_current);
    f.opt("tstate.direct", direct);
    let (flag, flag_cframe, flag_offset, width) = match t.use_tracing {
        UseTracing::ThreadState { offset } => (Some(offset), None, None, None),
        UseTracing::CFrame { cframe, offset, width } => {
            (None, Some(cframe), Some(offset), Some(width))
        }
        UseTracing::Absent => (None, None, None, None),
    };
    f.opt("tstate.use_tracing", flag);
    f.opt("tstate.use_tracing_cframe", flag_cframe);
    f.opt("tstate.use_tracing_offset", flag_offset);
    f.opt("tstate.use_tracing_width", width);
    f.put("tstate.next", t.next);
    f.put("tstate.interp", t.interp);
    f.put("tstate.thread_id", t.thread_id);
    f.opt("tstate.tracing", t.tracing);
    f.opt("tstate.c_profilefunc", t.c_profilefunc);
    f.opt("tstate.c_tracefunc", t.c_tracefunc);
    f.opt("tstate.c_profileobj", t.c_profileobj);
    f.opt("tstate.c_traceobj", t.c_traceobj);

    frames(&mut f, &layout.frame);
    code(&mut f, &layout.code);

    let i = &layout.interp;
    f.put("interp.size", i.size);
    f.put("interp.next", i.next);
    f.put("interp.threads_head", i.threads_head);
    f.opt("interp.id", i.id);
    f.opt("interp.eval_frame", i.eval_frame);
    f.opt("interp.co_extra_user_count", i.co_extra_user_count);
    f.opt("interp.tracing_possible", i.tracing_possible);
    f.opt("interp.gil", i.gil);
    f.opt("interp.own_gil", i.own_gil);
    f.opt("interp.runtime_interpreters_head", i.runtime_interpreters_head);

    objects(&mut f, layout);
    f
}

fn frames(f: &mut Facts, frame: &Frame) {
    let o = &frame.object;
    f.put("fobject.size", o.size);
    f.put("fobject.f_back", o.f_back);
    f.opt("fobject.f_code", o.f_code);
    f.opt("fobject.f_globals", o.f_globals);
    f.opt("fobject.f_lasti", o.f_lasti);
    f.put("fobject.lasti_unit", o.lasti_unit);
    f.put("fobject.f_lineno", o.f_lineno);
    f.put("fobject.f_trace", o.f_trace);
    f.opt("fobject.f_trace_lines", o.f_trace_lines);
    f.opt("fobject.f_trace_opcodes", o.f_trace_opcodes);
    f.opt("fobject.f_executing", o.f_executing);
    f.opt("fobject.f_state", o.f_state);
    f.opt("fobject.f_frame", o.f_frame);
    let Some(i) = &frame.interpreter else {
        f.opt::<u8>("iframe", None);
        return;
    };
    f.put("iframe", i.size);
    f.put("iframe.executable", i.executable);
    f.put("iframe.globals", i.globals);
    f.put("iframe.tag_mask", i.executable_tag_mask);
    f.put("iframe.previous", i.previous);
    f.opt("iframe.frame_obj", i.frame_obj);
    f.put("iframe.instr_ptr", i.instr_ptr);
    f.0.insert("iframe.points_to", format!("'{:?}'", i.instr_ptr_points_to));
    f.put("iframe.owner", i.owner);
    f.put("iframe.generator", i.owned_by_generator);
    f.opt("iframe.cstack", i.owned_by_cstack);
    f.opt("iframe.interpreter", i.owned_by_interpreter);
}

fn code(f: &mut Facts, c: &Code) {
    f.put("code.size", c.size);
    f.put("code.filename", c.filename);
    f.put("code.name", c.name);
    f.opt("code.qualname", c.qualname);
    f.put("code.firstlineno", c.firstlineno);
    f.put("code.linetable", c.linetable);
    let (object, inline) = match c.code {
        Bytecode::Object(at) => (Some(at), None),
        Bytecode::Inline(at) => (None, Some(at)),
    };
    f.opt("code.object", object);
    f.opt("code.inline", inline);
    f.opt("code.flags", c.flags);
    f.opt("code.consts", c.consts);
    f.opt("code.names", c.names);
    f.put("code.delete_subscr", c.delete_subscr);
    for (op, &units) in c.inline_caches.iter().enumerate().filter(|(_, &units)| units > 0) {
        f.put(format!("inline_cache.{op}").leak(), units);
    }
    f.opt("code.extra", c.extra);
    f.opt("code.zombieframe", c.zombieframe);
    f.opt("code.monitoring", c.monitoring);
}

fn objects(f: &mut Facts, layout: &Layout) {
    match &layout.str_ {
        Str::Wide(s) => {
            f.put("str.length", s.length);
            f.put("str.data_pointer", s.data_pointer);
        }
        Str::Flexible(s) => {
            f.put("str.length", s.length);
            f.put("str.state", s.state);
            f.put("str.kind_shift", s.kind_shift);
            f.put("str.kind_mask", s.kind_mask);
            f.put("str.compact_bit", s.compact_bit);
            f.put("str.ascii_bit", s.ascii_bit);
            f.opt("str.ready_bit", s.ready_bit);
            f.put("str.ascii_data", s.ascii_data);
            f.put("str.compact_data", s.compact_data);
            f.put("str.data_pointer", s.data_pointer);
        }
    }
    f.put("bytes.len", layout.bytes.len);
    f.put("bytes.data", layout.bytes.data);
    let o = &layout.object;
    f.put("object.gc_head", o.gc_head);
    f.put("object.refcnt", o.refcnt);
    f.put("object.type_", o.type_);
    f.put("object.tp_name", o.tp_name);
    f.put("object.tp_flags", o.tp_flags);
    f.put("object.tuple_len", o.tuple_len);
    f.put("object.tuple_items", o.tuple_items);
    f.put("object.long_tag", o.long_tag);
    f.put("object.long_digits", o.long_digits);
    f.opt("object.int_value", o.int_value);
    let g = &layout.function;
    f.put("function.code", g.code);
    f.put("function.globals", g.globals);
    f.put("function.name", g.name);
    f.opt("function.qualname", g.qualname);
    let m = &layout.obmalloc;
    f.put("obmalloc.arena_size", m.arena_size);
    f.put("obmalloc.pool_size", m.pool_size);
    f.put("obmalloc.alignment", m.alignment);
    f.put("obmalloc.small_request_max", m.small_request_max);
    f.put("obmalloc.header", m.pool_header);
    f.put("obmalloc.count", m.pool_count);
    f.put("obmalloc.freeblock", m.pool_freeblock);
    f.put("obmalloc.nextpool", m.pool_nextpool);
    f.put("obmalloc.prevpool", m.pool_prevpool);
    f.put("obmalloc.arenaindex", m.pool_arenaindex);
    f.put("obmalloc.szidx", m.pool_szidx);
    f.put("obmalloc.nextoffset", m.pool_nextoffset);
    f.put("obmalloc.maxnextoffset", m.pool_maxnextoffset);
}

/// The layouts to test an interpreter with, by where they come from.
fn layouts(major: u8, minor: u8, table: &str) -> Result<Vec<(&'static str, Layout)>, String> {
    let mut layouts = Vec::new();
    if let Some(layout) = layout(major, minor) {
        layouts.push(("static table", *layout));
    }
    let digits = table.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    let bytes = bytes.ok_or("the debug offsets are not hexadecimal")?;
    if !bytes.is_empty() {
        let layout = from_debug_offsets(&bytes).map_err(|error| error.to_string())?;
        layouts.push(("debug offsets", layout));
    }
    Ok(layouts)
}

/// `None` if it is not CPython; its version and what was found otherwise.
#[allow(clippy::type_complexity)]
fn check(python: &PathBuf) -> Result<Option<((u8, u8), Vec<String>)>, String> {
    let probe = run(python, CHECK, &["probe", &DEBUG_OFFSETS_MAX.to_string()])?;
    let words: Vec<&str> = probe.split_whitespace().collect();
    let [implementation, major, minor, micro, rest @ ..] = words.as_slice() else {
        return Err(format!("unexpected answer {probe:?}"));
    };
    if *implementation != "CPython" {
        return Ok(None);
    }
    let number = |word: &str| word.parse::<u8>().map_err(|error| error.to_string());
    let version = (number(major)?, number(minor)?);
    let layouts = layouts(version.0, version.1, rest.first().unwrap_or(&""))?;
    if layouts.is_empty() {
        return Err(format!("no layout for Python {major}.{minor}.{micro}"));
    }
    let mut reports = Vec::new();
    for (source, layout) in layouts {
        assert_eq!(layout.version, version);
        let report = run(python, CHECK, &[&facts(&layout).literal()])
            .map_err(|error| format!("{major}.{minor}.{micro}, {source}: {error}"))?;
        reports.push(format!("{major}.{minor}.{micro}, {source}: {report}"));
    }
    Ok(Some((version, reports)))
}

#[test]
fn layouts_match_the_interpreters() {
    let mut tested = Vec::new();
    let mut failures = Vec::new();
    for python in interpreters() {
        match check(&python) {
            Ok(None) => {}
            Ok(Some((version, reports))) => {
                tested.push(version);
                for report in reports {
                    println!("{}: {report}", python.display());
                }
            }
            Err(error) => failures.push(format!("{}: {error}", python.display())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(!tested.is_empty(), "no CPython found; set STRANDLINE_TEST_PYTHONS");
    let missing: Vec<_> = SERIES.iter().filter(|series| !tested.contains(series)).collect();
    println!("series not tested: {missing:?}");
    let ci = std::env::var_os("CI").is_some();
    assert!(!ci || missing.is_empty(), "no interpreter for series {missing:?}");
}

const ASYNCIO: &str = include_str!("check_asyncio.py");

/// What `check_asyncio.py` calls the numbers of `asyncio.rs`.
fn asyncio_facts(layout: &Layout, a: &asyncio::Asyncio) -> Facts {
    use asyncio::*;
    let mut f = Facts::default();
    f.put("basicsize", TP_BASICSIZE);
    f.put("task.size", a.task.size);
    f.put("task.future_size", a.task.future_size);
    f.opt("task.callback0", a.task.callback0);
    f.put("task.callbacks", a.task.callbacks);
    f.put("task.coro", a.task.coro);
    f.put("wrapped_task", WRAPPED_TASK);
    f.put("wrapped_awaitable", WRAPPED_AWAITABLE);
    f.put("builtin.method", BUILTIN_METHOD);
    f.put("builtin.self", BUILTIN_SELF);
    f.put("method.function", METHOD_FUNCTION);
    f.put("method.self", METHOD_SELF);
    f.put("partial.function", PARTIAL_FUNCTION);
    f.put("partial.arguments", PARTIAL_ARGUMENTS);
    f.put("cell.content", CELL_CONTENT);
    f.put("list.len", LIST_LEN);
    f.put("list.items", LIST_ITEMS);
    f.put("tuple.items", layout.object.tuple_items);
    f.put("function.closure", a.function_closure);
    f.0.insert("created", Awaits::CREATED_313.to_string());
    f.0.insert("suspended_311", Awaits::SUSPENDED_311.to_string());
    f.0.insert("attributes", format!("'{:?}'", a.attributes));
    let Dict::Keys { first_value, .. } = layout.dict else { panic!("a dict of 2.7") };
    f.put("first_value", first_value);
    match a.suspended {
        Suspended::Object { frame, top, yield_from } => {
            f.put("suspended.frame", frame);
            f.put("suspended.yield_from", yield_from);
            f.opt("lasti", layout.frame.object.f_lasti);
            f.put("lasti_unit", layout.frame.object.lasti_unit);
            let (pointer, stack, depth) = match top {
                ObjectTop::Pointer(pointer) => (Some(pointer), None, None),
                ObjectTop::Depth { stack, depth } => (None, Some(stack), Some(depth)),
            };
            f.opt("suspended.pointer", pointer);
            f.opt("suspended.stack", stack);
            f.opt("suspended.depth", depth);
        }
        Suspended::Inside { state, stacktop, awaits } => {
            f.opt("suspended.frame", None::<u16>);
            f.put("suspended.state", state);
            f.put("suspended.stacktop", stacktop);
            let awaits = match awaits {
                Awaits::Resume => "None".to_owned(),
                Awaits::State(state) => state.to_string(),
            };
            f.0.insert("suspended.awaits", awaits);
            f.opt("in_generator", layout.frame.in_generator);
            let interpreter = layout.frame.interpreter.as_ref();
            f.opt("instr_ptr", interpreter.map(|frame| frame.instr_ptr));
            f.opt("slots", interpreter.map(|frame| frame.slots()));
        }
    }
    f
}

#[test]
fn tasks_and_coroutines_match_the_interpreters() {
    let mut tested = 0;
    let mut failures = Vec::new();
    for python in interpreters() {
        let probe = run(&python, CHECK, &["probe", "0"]).expect("an interpreter");
        let words: Vec<&str> = probe.split_whitespace().collect();
        let number = |word: &str| word.parse::<u8>().expect("a version");
        let (major, minor) = (number(words[1]), number(words[2]));
        let known = asyncio::asyncio(major, minor).filter(|_| words[0] == "CPython");
        let (Some(a), Some(layout)) = (known, layout(major, minor)) else { continue };
        tested += 1;
        if let Err(error) = run(&python, ASYNCIO, &[&asyncio_facts(layout, a).literal()]) {
            failures.push(format!("{}: {error}", python.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tested > 0, "no CPython of 3.6 to 3.13 found; set STRANDLINE_TEST_PYTHONS");
}

const LINE_TABLES: &str = include_str!("line_tables.py");

/// One code object's line as `line_tables.py` prints it, against a cursor that goes forward and
/// one that is new for every question.
fn check_lines(format: LineTable, step: usize, printed: &str) -> usize {
    let mut parts = printed.split(' ');
    let mut part = || parts.next().unwrap_or_else(|| panic!("too short: {printed}"));
    let first: i32 = part().parse().expect("first line");
    let hex = part().trim_start_matches('-');
    let table: Vec<u8> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"))
        .collect();
    let wanted: Vec<i32> = part().split(',').map(|line| line.parse().expect("line")).collect();
    let mut forward = Cursor::new(first);
    for (i, &line) in wanted.iter().enumerate() {
        let offset = (i * step) as i32;
        assert_eq!(forward.line_at(format, first, &table, offset), line, "{offset} of {printed}");
        if i % 37 == 0 {
            let anew = Cursor::new(first).line_at(format, first, &table, offset);
            assert_eq!(anew, line, "{offset} of {printed}");
        }
    }
    assert_eq!(forward.line_at(format, first, &table, 0), wanted[0], "back to the start");
    let last = wanted.iter().copied().max().unwrap_or(first).max(first);
    // Up to 3.9 a table may end with a step behind the last instruction.
    let named = format.last_line(first, &table);
    assert!(
        named == last || named > last && matches!(format, LineTable::Pairs { .. }),
        "{printed}"
    );
    wanted.len()
}

#[test]
fn lines_are_those_of_the_interpreter() {
    let mut read = 0;
    for python in interpreters() {
        let output = Command::new(&python).args(["-E", "-s", "-c", LINE_TABLES]).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", python.display());
        let text = String::from_utf8(output.stdout).expect("ASCII");
        let (version, codes) = text.split_once('\n').expect("a version");
        let (major, minor) = version.split_once(' ').expect("two numbers");
        let version = (major.parse().expect("major"), minor.parse().expect("minor"));
        let Some(layout) = layout(version.0, version.1) else { continue };
        let step = if version.0 == 2 { 1 } else { 2 };
        let offsets: usize =
            codes.lines().map(|line| check_lines(layout.code.line_table, step, line)).sum();
        assert!(offsets > 10_000, "{}: only {offsets} offsets", python.display());
        read += 1;
    }
    assert!(read > 0, "no interpreter of a known version");
}
