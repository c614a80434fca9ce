# Checks a layout against the interpreter that runs this. Runs on 2.7 and 3.6+.
# argv[1]: "probe" prints the version and the debug offsets; otherwise a dict.
import ast
import ctypes
import platform
import sys
import threading

api = ctypes.pythonapi
V = sys.version_info[:2]
P = ctypes.c_void_p
Z = ctypes.sizeof


def u64(at):
    return ctypes.c_uint64.from_address(at).value


def i32(at):
    return ctypes.c_int32.from_address(at).value


def u8(at):
    return ctypes.c_uint8.from_address(at).value


if sys.argv[1] == "probe":
    table = ""
    if V >= (3, 13):
        at = ctypes.addressof(ctypes.c_char.in_dll(api, "_PyRuntime"))
        table = ctypes.string_at(at, int(sys.argv[2])).hex()
    print("%s %d %d %d %s" % ((platform.python_implementation(),) + sys.version_info[:3] + (table,)))
    sys.exit()

L = ast.literal_eval(sys.argv[1])
checked = set()


def off(key):
    checked.add(key)
    return L[key]


def has(key):
    if L[key] is None:
        checked.add(key)
    return L[key] is not None


def same(what, got, want):
    if got != want:
        sys.exit("%s: read %r, is %r" % (what, got, want))


def target(first=1):
    # Some constants and names.
    return (first, 12345.5, "text")


def generator():
    yield sys._getframe()
    yield 2


# Objects.
same("refcnt", off("object.refcnt"), 0)
same("type", u64(id(target) + off("object.type_")), id(type(target)))
name_at = u64(id(dict) + off("object.tp_name"))
same("tp_name", ctypes.string_at(name_at), b"dict")
same("tp_flags", u64(id(dict) + off("object.tp_flags")), dict.__flags__)
same("gc_head", off("object.gc_head"), sys.getsizeof([]) - list.__basicsize__)
three = (object(), object(), object())
same("tuple_len", u64(id(three) + off("object.tuple_len")), 3)
same("tuple_items", u64(id(three) + off("object.tuple_items") + 16), id(three[2]))
long_ = type(2**70)((5 << 30) + 77)
tag = u64(id(long_) + off("object.long_tag"))
same("long_tag", tag, 2 if V < (3, 12) else 2 << 3)
same("long_digits", i32(id(long_) + off("object.long_digits")), 77)
if has("object.int_value"):
    same("int_value", u64(id(sys.maxsize) + off("object.int_value")), sys.maxsize)
raw = b"some bytes"
same("bytes.len", u64(id(raw) + off("bytes.len")), len(raw))
same("bytes.data", ctypes.string_at(id(raw) + off("bytes.data"), len(raw)), raw)

# Text.
if V < (3,):
    text = b"h\xc3\xa9llo".decode("utf-8")
    same("str.length", u64(id(text) + off("str.length")), 5)
    unit = 4 if sys.maxunicode > 0xFFFF else 2
    data = ctypes.string_at(u64(id(text) + off("str.data_pointer")), 5 * unit)
    same("str.data", data.decode("utf-32-le" if unit == 4 else "utf-16-le"), text)
else:
    for text, kind, codec in (
        ("plain", 1, "ascii"),
        ("h\u00e9llo", 1, "latin-1"),
        ("h\u65e5llo", 2, "utf-16-le"),
        ("h\U0001f600llo", 4, "utf-32-le"),
    ):
        state = ctypes.c_uint32.from_address(id(text) + off("str.state")).value
        is_ascii = codec == "ascii"
        same("str.length", u64(id(text) + off("str.length")), 5)
        same("str.kind", state >> off("str.kind_shift") & off("str.kind_mask"), kind)
        same("str.compact", state >> off("str.compact_bit") & 1, 1)
        same("str.ascii", state >> off("str.ascii_bit") & 1, int(is_ascii))
        if has("str.ready_bit"):
            same("str.ready", state >> off("str.ready_bit") & 1, 1)
        start = off("str.ascii_data") if is_ascii else off("str.compact_data")
        data = ctypes.string_at(id(text) + start, 5 * kind)
        same("str.data", data.decode(codec), text)

    class Sub(str):
        pass

    text = Sub("not compact")
    state = ctypes.c_uint32.from_address(id(text) + off("str.state")).value
    same("str.compact of a subclass", state >> off("str.compact_bit") & 1, 0)
    data = ctypes.string_at(u64(id(text) + off("str.data_pointer")), len(text))
    same("str.data_pointer", data, b"not compact")

# Functions and code.
same("function.code", u64(id(target) + off("function.code")), id(target.__code__))
same("function.globals", u64(id(target) + off("function.globals")), id(globals()))
same("function.name", u64(id(target) + off("function.name")), id(target.__name__))
if has("function.qualname"):
    same("function.qualname", u64(id(target) + off("function.qualname")), id(target.__qualname__))
code = target.__code__
at = id(code)
same("code.filename", u64(at + off("code.filename")), id(code.co_filename))
same("code.name", u64(at + off("code.name")), id(code.co_name))
if has("code.qualname"):
    same("code.qualname", u64(at + off("code.qualname")), id(code.co_qualname))
same("code.firstlineno", i32(at + off("code.firstlineno")), code.co_firstlineno)
lines = code.co_linetable if V >= (3, 10) else code.co_lnotab
same("code.linetable", u64(at + off("code.linetable")), id(lines))
if has("code.flags"):
    same("code.flags", i32(at + off("code.flags")), code.co_flags)
if has("code.consts"):
    same("code.consts", u64(at + off("code.consts")), id(code.co_consts))
if has("code.names"):
    same("code.names", u64(at + off("code.names")), id(code.co_names))
import opcode
same("code.delete_subscr", off("code.delete_subscr"), opcode.opmap["DELETE_SUBSCR"])
# opcode and dis know the instructions that the interpreter writes in place as well.
caches = getattr(opcode, "_inline_cache_entries", {})
families = {m: f for f, ms in getattr(opcode, "_specializations", {}).items() for m in ms}
every = dict(opcode.opmap)
if V >= (3, 11):
    import dis
    every.update(dis._all_opmap)
HIDING = ("INSTRUMENTED_LINE", "INSTRUMENTED_INSTRUCTION", "ENTER_EXECUTOR")
expected = {}
for name, number in every.items():
    plain = name.replace("INSTRUMENTED_", "", 1)
    plain = families.get(plain, plain)
    if name in HIDING:
        expected[number] = 255
    elif isinstance(caches, dict):
        expected[number] = caches.get(plain, 0)
    elif opcode.opmap.get(plain, 999) < len(caches):
        expected[number] = caches[opcode.opmap[plain]]
for number in range(256):
    field = "inline_cache.%d" % number
    same(field, L.get(field, 0), expected.get(number, 0))
basic = type(code).__basicsize__
if has("code.object"):
    same("code.object", u64(at + off("code.object")), id(code.co_code))
    same("code.size", off("code.size"), basic)
if has("code.inline"):
    same("code.inline", u8(at + off("code.inline")), bytearray(code.co_code)[0])
    same("code.inline", off("code.inline"), basic)
    same("code.size", off("code.size"), (basic + 8) & ~7)
if has("code.zombieframe"):
    same("code.zombieframe", u64(at + off("code.zombieframe")), 0)
    target()
    assert u64(at + off("code.zombieframe")) != 0
if has("code.monitoring"):
    same("code.monitoring", u64(at + off("code.monitoring")), 0)
    sys.monitoring.use_tool_id(3, "test")
    sys.monitoring.set_local_events(3, code, sys.monitoring.events.LINE)
    assert u64(at + off("code.monitoring")) != 0
    sys.monitoring.set_local_events(3, code, 0)
    sys.monitoring.free_tool_id(3)
same("sys_monitoring", off("sys_monitoring"), hasattr(sys, "monitoring"))
same("names_are_bytes", off("names_are_bytes"), type(code.co_name) is bytes)

# The thread state.
api.PyThreadState_Get.restype = P
ts = api.PyThreadState_Get()
same("tstate.thread_id", u64(ts + off("tstate.thread_id")), threading.current_thread().ident)
interp = u64(ts + off("tstate.interp"))
if V >= (3, 9):
    api.PyInterpreterState_Get.restype = P
    same("tstate.interp", interp, api.PyInterpreterState_Get())
else:
    api.PyInterpreterState_Head.restype = P
    same("tstate.interp", interp, api.PyInterpreterState_Head())
same("interp.threads_head", u64(interp + off("interp.threads_head")), ts)
same("tstate.next", u64(ts + off("tstate.next")), 0)
same("interp.next", u64(interp + off("interp.next")), 0)
ready, done = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (ready.set(), done.wait()))
thread.start()
ready.wait()
head = u64(interp + off("interp.threads_head"))
same("thread_id of another", u64(head + off("tstate.thread_id")), thread.ident)
same("tstate.next of another", u64(head + off("tstate.next")), ts)
done.set()
thread.join()


def code_at(frame):
    # The address of a raw frame's code object, None if it carries no code.
    if L["iframe"] is None:
        return u64(frame + off("fobject.f_code"))
    if u8(frame + off("iframe.owner")) in (off("iframe.cstack"), off("iframe.interpreter")):
        return None
    word = u64(frame + off("iframe.executable"))
    return word & ~off("iframe.tag_mask")


def walk():
    # The codes of the frames from here, as the raw pointers have it.
    if has("tstate.frame"):
        frame, back = u64(ts + off("tstate.frame")), off("fobject.f_back")
    elif has("tstate.cframe"):
        cframe = u64(ts + off("tstate.cframe"))
        frame, back = u64(cframe + off("tstate.cframe_current")), off("iframe.previous")
    else:
        frame, back = u64(ts + off("tstate.direct")), off("iframe.previous")
    codes = []
    while frame:
        code = code_at(frame)
        if code is not None:
            codes.append(code)
        frame = u64(frame + back)
    return codes


def nested(depth):
    if depth:
        return list(map(nested, [depth - 1]))[0]
    want = []
    frame = sys._getframe()
    while frame:
        want.append(id(frame.f_code))
        frame = frame.f_back
    got = walk()
    # What is above this frame is the helpers that read.
    same("the frames from the thread state", got[-len(want) :], want)
    assert id(walk.__code__) in got


nested(3)

# Frames.
gen = generator()
next(gen)
frame = gen.gi_frame
at = id(frame)
interpreter_frame = at
if has("fobject.f_code"):
    same("f_code", u64(at + off("fobject.f_code")), id(frame.f_code))
    same("f_globals", u64(at + off("fobject.f_globals")), id(frame.f_globals))
if has("fobject.f_lasti"):
    same("f_lasti", i32(at + off("fobject.f_lasti")) * off("fobject.lasti_unit"), frame.f_lasti)
if V <= (3, 9):
    same("f_lineno", i32(at + off("fobject.f_lineno")), frame.f_code.co_firstlineno)
else:
    same("f_lineno", i32(at + off("fobject.f_lineno")), 0)
if has("fobject.f_executing"):
    same("f_executing", u8(at + off("fobject.f_executing")), 0)
    here = sys._getframe()
    same("f_executing", u8(id(here) + off("fobject.f_executing")), 1)
if has("fobject.f_state"):
    same("f_state", u8(at + off("fobject.f_state")), 255)
    here = sys._getframe()
    same("f_state", u8(id(here) + off("fobject.f_state")), 0)
if V <= (3, 10):
    same("fobject.size", off("fobject.size"), type(frame).__basicsize__)
else:
    # The type's size holds both structures, each without its last slot.
    both = off("fobject.size") - 8 + off("iframe") - 8
    same("fobject.size", both, type(frame).__basicsize__)
    raw = u64(at + off("fobject.f_frame"))
    same("iframe.executable", code_at(raw), id(frame.f_code))
    same("iframe.globals", u64(raw + off("iframe.globals")), id(frame.f_globals))
    if has("iframe.frame_obj"):
        same("iframe.frame_obj", u64(raw + off("iframe.frame_obj")), at)
    same("iframe.owner", u8(raw + off("iframe.owner")), off("iframe.generator"))
    start = id(frame.f_code) + off("code.inline")
    same("iframe.instr_ptr", u64(raw + off("iframe.instr_ptr")) - start, frame.f_lasti)
    assert off("iframe.points_to") == ("Previous" if V < (3, 13) else "Current")
trace = lambda *args: None
frame.f_trace = trace
same("f_trace", u64(at + off("fobject.f_trace")), id(trace))
if has("fobject.f_trace_lines"):
    same("f_trace_lines", u8(at + off("fobject.f_trace_lines")), 1)
    same("f_trace_opcodes", u8(at + off("fobject.f_trace_opcodes")), 0)
    frame.f_trace_lines, frame.f_trace_opcodes = False, True
    same("f_trace_lines", u8(at + off("fobject.f_trace_lines")), 0)
    same("f_trace_opcodes", u8(at + off("fobject.f_trace_opcodes")), 1)


def back_frame():
    here = sys._getframe()
    if V <= (3, 10):
        same("f_back", u64(id(here) + off("fobject.f_back")), id(here.f_back))
    return here


here = back_frame()
if V >= (3, 11):
    # Set once the frame was left, by whoever kept it.
    assert u64(id(here) + off("fobject.f_back")) in (0, id(sys._getframe()))
del frame, gen, here


# Tracing.
def flag():
    if has("tstate.use_tracing"):
        return i32(ts + off("tstate.use_tracing"))
    if has("tstate.use_tracing_cframe"):
        at = u64(ts + off("tstate.use_tracing_cframe")) + off("tstate.use_tracing_offset")
        return {1: u8, 4: i32}[off("tstate.use_tracing_width")](at)
    return None


within = []


def tracer(frame, event, arg):
    if has("tstate.tracing"):
        within.append(i32(ts + off("tstate.tracing")))


for kind, set_it in (("trace", sys.settrace), ("profile", sys.setprofile)):
    if not has("tstate.c_%sobj" % kind):
        off("tstate.c_%sfunc" % kind)
        continue
    obj_at = ts + off("tstate.c_%sobj" % kind)
    func_at = ts + off("tstate.c_%sfunc" % kind)
    same("c_%sobj" % kind, u64(obj_at), 0)
    same("c_%sfunc" % kind, u64(func_at), 0)
    same("use_tracing", flag(), None if V >= (3, 12) else 0)
    set_it(tracer)
    obj, func, use = u64(obj_at), u64(func_at), flag()
    set_it(None)
    same("c_%sobj while set" % kind, obj, id(tracer))
    assert func != 0
    assert (use is None) == (V >= (3, 12)) and use != 0, use
    same("c_%sobj after" % kind, u64(obj_at), 0)
same("tracing", set(within) - {1}, set())
if has("tstate.tracing"):
    same("tracing", i32(ts + off("tstate.tracing")), 0)
    assert within

# The interpreter.
if has("interp.id"):
    same("interp.id", u64(interp + off("interp.id")), 0)
if has("interp.eval_frame"):
    default = ctypes.cast(api._PyEval_EvalFrameDefault, P).value
    got = u64(interp + off("interp.eval_frame"))
    same("interp.eval_frame", got, default if V <= (3, 10) else 0)
    if V >= (3, 11):
        # Null says little, so what the getter reads has to be this member.
        get = api._PyInterpreterState_GetEvalFrameFunc
        get.restype, get.argtypes = P, [P]
        copy = ctypes.create_string_buffer(off("interp.size"))
        other = ctypes.addressof(copy) + off("interp.eval_frame")
        ctypes.c_uint64.from_address(other).value = 0x1234
        same("interp.eval_frame by its getter", get(ctypes.addressof(copy)), 0x1234)
if has("interp.co_extra_user_count"):
    count_at = interp + off("interp.co_extra_user_count")
    new = "PyUnstable_Eval_RequestCodeExtraIndex"
    request = getattr(api, new if V >= (3, 12) else "_PyEval_RequestCodeExtraIndex")
    request.argtypes = [P]
    before = u64(count_at)
    request(None)
    same("interp.co_extra_user_count", u64(count_at), before + 1)
if has("code.extra"):
    new, old = "PyUnstable_Code_SetExtra", "_PyCode_SetExtra"
    set_extra = getattr(api, new if V >= (3, 12) else old)
    set_extra.argtypes = [ctypes.py_object, ctypes.c_ssize_t, P]
    new, old = "PyUnstable_Eval_RequestCodeExtraIndex", "_PyEval_RequestCodeExtraIndex"
    getattr(api, new if V >= (3, 12) else old)(None)
    same("code.extra", u64(id(code) + off("code.extra")), 0)
    set_extra(code, 0, 0x1000)
    assert u64(id(code) + off("code.extra")) != 0
    set_extra(code, 0, None)
if has("interp.tracing_possible"):
    possible_at = interp + off("interp.tracing_possible")
    same("interp.tracing_possible", i32(possible_at), 0)
    sys.settrace(tracer)
    possible = i32(possible_at)
    sys.settrace(None)
    same("interp.tracing_possible", possible, 1)
if has("interp.own_gil"):
    same("interp.own_gil", i32(interp + off("interp.own_gil")), 1)
if has("interp.gil"):
    gil = u64(interp + off("interp.gil"))
    assert interp <= gil < interp + off("interp.size")
if has("interp.runtime_interpreters_head"):
    runtime = ctypes.addressof(ctypes.c_char.in_dll(api, "_PyRuntime"))
    head_at = runtime + off("interp.runtime_interpreters_head")
    same("runtime.interpreters.head", u64(head_at), interp)

# pymalloc.
many = [b"%05d" % i + b"x" * (i % 400) for i in range(30000)]
pool_size = off("obmalloc.pool_size")
for i in range(0, 30000, 97):
    size = sys.getsizeof(many[i])
    pool = id(many[i]) & ~(pool_size - 1)
    block = (i32(pool + off("obmalloc.szidx")) + 1) * off("obmalloc.alignment")
    same("the block of %d bytes" % size, block, size + 15 & ~15)
    same("the block's place", (id(many[i]) - pool - off("obmalloc.header")) % block, 0)
    count = i32(pool + off("obmalloc.count"))
    assert 0 < count <= pool_size // block
    used = (i32(pool + off("obmalloc.nextoffset")) - off("obmalloc.header")) // block
    assert count <= used <= pool_size // block
    last = i32(pool + off("obmalloc.maxnextoffset"))
    same("obmalloc.maxnextoffset", last, pool_size - block)
assert off("obmalloc.small_request_max") == 512

left = set(key for key in L if L[key] is not None) - checked
print("%d facts checked; not checked: %s" % (len(checked), " ".join(sorted(left))))
