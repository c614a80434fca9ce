# strandline's front inside the target: finds out what is to be shown. Runs once, when it is needed,
# in a namespace of its own, on every CPython from 2.7 on. Nothing is imported; `sys` and the `native_*` functions
# are given. It never raises into the program.


def _codes(code):
    found = [code]
    for const in code.co_consts:
        if type(const) is CODE:
            found.extend(_codes(const))
    return found


def _last_line(code):
    last = code.co_firstlineno
    for one in _codes(code):
        if hasattr(one, "co_lines"):
            numbers = [n for _, _, n in one.co_lines() if n]
            last = max([last] + numbers)
        else:
            line = one.co_firstlineno
            table = bytearray(one.co_lnotab)
            for step in table[1::2]:
                line += step - 256 if step > 127 and sys.version_info >= (3, 6) else step
                last = max(last, line)
    return last


def _bytes(text):
    if isinstance(text, bytes):
        return text
    return text.encode("utf-8", "replace")


def _readable(path):
    try:
        open(path).close()
        return True
    except Exception:
        return False


def _absolute(path):
    # Relative names (2.7 to 3.8 scripts) mean the working directory of now, not of the report.
    if path.startswith(("/", "<")) or "os" not in sys.modules:
        return ""
    try:
        return sys.modules["os"].path.abspath(path)
    except Exception:
        return ""


def _source(code, names):
    # Only where no file has it: a zip archive's loader does, and so does linecache.
    if code.co_filename.startswith("<") and not names:
        return ""
    if _readable(code.co_filename):
        return ""
    try:
        loader = names.get("__loader__")
        if hasattr(loader, "get_source"):
            return loader.get_source(names.get("__name__")) or ""
    except Exception:
        pass
    try:
        return "".join(sys.modules["linecache"].cache[code.co_filename][2])
    except Exception:
        return ""


COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


def _mark(code, name, names):
    if code in MARKS:
        return
    MARKS.add(code)
    index = native_mark(
        code,
        code.co_firstlineno,
        _last_line(code),
        _bytes(name),
        _bytes(_absolute(code.co_filename)),
        _bytes(_source(code, names)),
        1,
    )
    if index < 0:
        return
    _listen(code)
    for const in code.co_consts:
        if type(const) is CODE:
            _mark_nested(const, index)


def _mark_nested(code, index):
    if code in MARKS:
        return
    MARKS.add(code)
    # A comprehension runs within its line; its own events would count the line again.
    if code.co_name not in COMPREHENSIONS:
        native_nested(code, index)
        _listen(code)
    for const in code.co_consts:
        if type(const) is CODE:
            _mark_nested(const, index)


def _listen(code):
    if MONITORING is None:
        native_trace()
        return
    tool = _tool()
    e = MONITORING.events
    MONITORING.set_local_events(
        tool, code, e.LINE | e.PY_START | e.PY_RESUME | e.PY_RETURN | e.PY_YIELD
    )


def _tool():
    if TOOL:
        return TOOL[0]
    for number in (4, 3, 2, 5, 1, 0):
        if MONITORING.get_tool(number) is None:
            break
    else:
        raise RuntimeError("no free tool id")
    MONITORING.use_tool_id(number, "strandline")
    TOOL.append(number)
    e = MONITORING.events
    for event, which in (
        (e.LINE, 0),
        (e.PY_START, 1),
        (e.PY_RESUME, 2),
        (e.PY_RETURN, 3),
        (e.PY_YIELD, 3),
        (e.PY_UNWIND, 3),
    ):
        MONITORING.register_callback(number, event, native_callback(which))
    MONITORING.set_events(number, e.PY_UNWIND | (e.PY_START if CONSIDERING else 0))
    return number


def _functions(thing, depth=0):
    # The functions behind whatever a decorator may be handed.
    if depth > 20:
        return
    code = getattr(thing, "__code__", None)
    if type(code) is CODE and not isinstance(thing, type):
        inner = getattr(thing, "__wrapped__", None)
        if inner is not None and inner is not thing:
            for f in _functions(inner, depth + 1):
                yield f
        else:
            yield thing
        return
    if isinstance(thing, (staticmethod, classmethod)):
        for f in _functions(getattr(thing, "__func__", None), depth + 1):
            yield f
    elif isinstance(thing, property):
        for part in (thing.fget, thing.fset, thing.fdel):
            for f in _functions(part, depth + 1):
                yield f
    elif isinstance(thing, type):
        for value in list(vars(thing).values()):
            if isinstance(value, (staticmethod, classmethod, property)) or hasattr(value, "__code__"):
                for f in _functions(value, depth + 1):
                    yield f
    else:
        for name in ("__wrapped__", "func", "__func__", "method"):
            inner = getattr(thing, name, None)
            if inner is not None and inner is not thing:
                for f in _functions(inner, depth + 1):
                    yield f
                return


def _profile(thing):
    native_quiet(1)
    try:
        for f in _functions(thing):
            name = getattr(f, "__qualname__", None) or f.__name__
            _mark(f.__code__, name, f.__globals__)
    except Exception:
        pass
    finally:
        native_quiet(0)
    return thing


def profile(func=None, *args, **kwargs):
    """Show this function's lines in strandline's table. Returns the function itself."""
    if func is None or not (callable(func) or hasattr(func, "__func__") or hasattr(func, "fget")):
        return profile
    return _profile(func)


def _matches(pattern, text):
    # Globs: * and ?, nothing else, since [ and ] don't occur in names.
    p = t = 0
    star = mark = -1
    while t < len(text):
        if p < len(pattern) and (pattern[p] == "?" or pattern[p] == text[t]):
            p += 1
            t += 1
        elif p < len(pattern) and pattern[p] == "*":
            star, mark = p, t
            p += 1
        elif star >= 0:
            p, mark = star + 1, mark + 1
            t = mark
        else:
            return False
    return all(c == "*" for c in pattern[p:])


def _qualified(code, names):
    if hasattr(code, "co_qualname"):
        return code.co_qualname
    seen = set()

    def look(space, prefix, depth):
        for key, value in list(space.items()):
            value = getattr(value, "__func__", value)
            if getattr(value, "__code__", None) is code:
                return getattr(value, "__qualname__", prefix + key)
            if isinstance(value, property):
                for part in (value.fget, value.fset, value.fdel):
                    if getattr(part, "__code__", None) is code:
                        return prefix + key
            if isinstance(value, type) and depth < 4 and id(value) not in seen:
                seen.add(id(value))
                found = look(vars(value), prefix + key + ".", depth + 1)
                if found:
                    return found
        return None

    return look(names, "", 0) or code.co_name


def _own(path):
    if not LIBRARY:
        # The front runs before sys.prefix is set.
        for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
            LIBRARY.append(getattr(sys, name, sys.prefix) + "/lib")
    if path.startswith("<") or not path:
        return False
    for part in ("/site-packages/", "/dist-packages/"):
        if part in path:
            return False
    return not path.startswith(tuple(LIBRARY))


def _consider(code, names):
    if not code.co_flags & 1 or code.co_name.startswith("<") and code.co_name != "<lambda>":
        # Without CO_OPTIMIZED it is a module or a class body, not a function.
        return
    name = _qualified(code, names)
    wanted = OPTIONS & 2 and _own(code.co_filename)
    if not wanted and PATTERNS:
        module = str(names.get("__name__", ""))
        spec = getattr(names.get("__spec__"), "name", None)
        for pattern in PATTERNS:
            where, colon, what = pattern.rpartition(":")
            if _matches(what, name) and (
                not colon or _matches(where, module) or (spec and _matches(where, spec))
            ):
                wanted = True
                break
    if wanted:
        _mark(code, name, names)


CODE = type(profile.__code__)
MARKS = set()
TOOL = []
LIBRARY = []
MONITORING = getattr(sys, "monitoring", None)
CONSIDERING = bool(OPTIONS & 6)
PATTERNS = [p for p in PATTERN_TEXT.split("\n") if p]
BUILTINS["profile"] = profile
if CONSIDERING:
    native_consider(_consider, MONITORING.DISABLE if MONITORING is not None else None)
    if MONITORING is None:
        native_trace()
    else:
        _tool()
