# strandline's front inside the target: finds out what is to be shown. Runs once, when it is needed,
# in a namespace of its own, on every CPython from 2.7 on. Nothing is imported; `sys` and the `native_*` functions
# are given. It never raises into the program. Only what a plain decorated function in a file needs is here, since
# compiling it takes time; the rest is in front_more.py.


def _more():
    if not MORE:
        MORE.append(1)
        native_more()


def _bytes(text):
    if isinstance(text, bytes):
        return text
    return text.encode("utf-8", "replace")


COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


def _mark(code, name, names):
    if code in MARKS:
        return
    MARKS.add(code)
    path = source = ""
    try:
        open(code.co_filename).close()
        here = code.co_filename.startswith("/")
    except Exception:
        here = False
    if not here:
        _more()
        path, source = _absolute(code.co_filename), _source(code, names)
    index = native_mark(code, _bytes(name), _bytes(path), _bytes(source), 1)
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


def _profile(thing):
    native_quiet(1)
    try:
        if type(thing) is type(_more) and not hasattr(thing, "__wrapped__"):
            found = [thing]
        else:
            _more()
            found = _functions(thing)
        for f in found:
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


CODE = type(profile.__code__)
MARKS = set()
MORE = []
TOOL = []
MONITORING = getattr(sys, "monitoring", None)
CONSIDERING = bool(OPTIONS & 6)
BUILTINS["profile"] = profile
if CONSIDERING:
    _more()
    native_consider(_consider, MONITORING.DISABLE if MONITORING is not None else None)
    if MONITORING is None:
        native_trace()
    else:
        _tool()
