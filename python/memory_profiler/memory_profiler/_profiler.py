"""LineProfiler: which functions are measured, and when."""
import pdb
import sys
import threading
from contextlib import contextmanager
from functools import partial
from types import CodeType, FunctionType

from . import _memory, _native, _pyspark
from ._codemap import CodeMap
from ._memory import MIB
from ._monitor import Monitor
from ._steps import wrap
from ._trace import SetTrace, Table


def functions_in(thing):
    """The Python functions behind a callable: what decorators, partials and bound methods wrap; those of a class."""
    seen = set()
    found = []
    todo = [thing]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, type):
            todo += [v for v in vars(one).values() if isinstance(v, _PLAIN) or hasattr(v, "__wrapped__")]
        elif isinstance(one, property):
            todo += [f for f in (one.fget, one.fset, one.fdel) if f is not None]
        elif hasattr(one, "__wrapped__"):
            # A decorator's own lines are nobody's question.
            todo.append(one.__wrapped__)
        elif hasattr(one, "__func__"):
            todo.append(one.__func__)
        elif isinstance(one, partial):
            todo.append(one.func)
        elif isinstance(getattr(one, "__code__", None), CodeType):
            found.append(one)
    return found


_PLAIN = (FunctionType, classmethod, staticmethod, property)


class _PerThread(threading.local):
    # Of the class, since PySpark makes a profiler for every call of a function.
    count = 0
    # What runs now; what ran last, and can run again while the code map is what it was.
    engine = None
    ready = None
    made_for = None


class LineProfiler(object):
    """Measures memory line by line in the functions that it is told of.

    Used as a decorator, by add_function() and runctx(), or as a context manager. `backend`: see choose_backend();
    `include_children`: add the memory of child processes; `max_mem`: MiB above which pdb is entered; `baseline`: see
    CodeMap.
    """

    def __init__(self, **kw):
        include_children = kw.get("include_children", False)
        self.backend = kw.get("backend", "psutil")
        self.max_mem = kw.get("max_mem", None)
        self.prevlines = []
        self.prev_lineno = None
        if self._own_map:
            self.code_map = CodeMap(include_children=include_children, backend=self.backend)
            self.code_map.baseline = kw.get("baseline", None)

    # Made when it is needed first.
    _thread = _pyspark.Late("_thread", _PerThread)
    # False if the subclass puts one of its own in place at once.
    _own_map = True

    def __init_subclass__(cls, **kw):
        super().__init_subclass__(**kw)
        if cls.__module__ == _pyspark.MODULE:
            _pyspark.adapt(cls, LineProfiler)

    @property
    def enable_count(self):
        """How many times the calling thread has enabled this profiler and not disabled it again."""
        return self._thread.count

    @enable_count.setter
    def enable_count(self, count):
        self._thread.count = count

    def __call__(self, func=None, precision=1):
        if func is None:
            return partial(self, precision=precision)
        if isinstance(func, type):
            return self._decorate_class(func)
        if isinstance(func, (classmethod, staticmethod)):
            return type(func)(self(func.__func__))
        if isinstance(func, property):
            methods = [m and self(m) for m in (func.fget, func.fset, func.fdel)]
            return property(*methods, doc=func.__doc__)
        self.add_function(func)
        return self.wrap_function(func)

    def _decorate_class(self, cls):
        for name, value in list(vars(cls).items()):
            if isinstance(value, _PLAIN):
                setattr(cls, name, self(value))
        return cls

    def add_function(self, func):
        """Measure the lines of this function from the next time on that the profiler is enabled."""
        if type(func) is FunctionType and not hasattr(func, "__wrapped__"):
            self.code_map.add(func.__code__)
            return
        found = functions_in(func)
        if not found:
            import warnings

            warnings.warn("Could not extract a code object for the object %r" % (func,))
        for one in found:
            self.code_map.add(one.__code__)

    @contextmanager
    def _count_ctxmgr(self):
        self.enable_by_count()
        try:
            yield
        finally:
            self.disable_by_count()

    def wrap_function(self, func):
        """A function of the same kind that is measured whenever it runs."""
        return wrap(func, lambda: (self, None))

    def runctx(self, cmd, globals, locals):
        """Run a statement with the profiler enabled."""
        with self._count_ctxmgr():
            exec(cmd, globals, locals)
        return self

    def enable_by_count(self):
        """Measure in the calling thread until as many disable_by_count() follow."""
        thread = self._thread
        if thread.count == 0:
            self.enable()
        thread.count += 1

    def disable_by_count(self):
        thread = self._thread
        if thread.count > 0:
            thread.count -= 1
            if thread.count == 0:
                self.disable()

    def __enter__(self):
        self.enable_by_count()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.disable_by_count()

    def enable(self):
        """Measure in the calling thread, whatever the count is."""
        thread = self._thread
        if thread.engine is not None:
            return
        engine = self._prepared()
        if engine.start() is False:
            engine = self._in_python()
            engine.start()
        thread.engine = engine

    def _prepared(self):
        _memory.after_a_fork()
        thread = self._thread
        made_for = self.code_map, len(self.code_map)
        if thread.ready is None or thread.made_for[0] is not made_for[0] or thread.made_for[1] != made_for[1]:
            thread.made_for = made_for
            if self.max_mem is not None:
                thread.ready = _Watch(self.code_map, self.max_mem, _memory.own_reader(self.backend))
            else:
                thread.ready = _native.engine(self.code_map) or self._in_python()
        return thread.ready

    def _in_python(self):
        tables = self._new_tables()
        return Monitor.of(tables) or SetTrace(tables)

    def _new_tables(self):
        tables = {}
        by_lines = {}
        for code, lines in dict.items(self.code_map):
            table = by_lines.get(id(lines))
            if table is None:
                table = by_lines[id(lines)] = Table(self.code_map.reader(code), bool(lines))
            tables[code] = table
        return tables

    def disable(self):
        """Stop measuring in the calling thread, and put down what was measured."""
        thread = self._thread
        engine = thread.engine
        if engine is None:
            return
        engine.stop()
        thread.engine = None
        engine.put_down(self.code_map)


class _Watch:
    """Steps into the debugger at the first line of a profiled function that finds more memory than allowed."""

    def __init__(self, codes, limit, read):
        self.codes = codes
        self.limit = limit
        self.read = read
        self.previous = None

    def start(self):
        self.previous = sys.gettrace()
        sys.settrace(self._trace)

    def stop(self):
        if sys.gettrace() == self._trace:
            sys.settrace(self.previous)

    def put_down(self, code_map):
        """Nothing is measured."""

    def _trace(self, frame, event, arg):
        if frame.f_code not in self.codes:
            return None
        if event == "line":
            memory = self.read() / MIB
            if memory >= self.limit:
                sys.settrace(self.previous)
                sys.stdout.write(
                    "Current memory {0:.2f} MiB exceeded the maximum of {1:.2f} MiB\n"
                    "Stepping into the debugger \n".format(memory, self.limit)
                )
                debugger = pdb.Pdb()
                debugger.set_trace(frame)
                return frame.f_trace
        return self._trace
