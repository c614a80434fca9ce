# The rest of the front (see front.py), run in its namespace when something needs it: source that no file has, things
# that aren't plain functions, and the choice of functions by name.


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


LIBRARY = []
PATTERNS = [p for p in PATTERN_TEXT.split("\n") if p]
