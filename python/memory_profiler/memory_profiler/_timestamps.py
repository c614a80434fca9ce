"""TimeStamper: when functions began and ended, and the memory at both moments."""
import sys
import threading
import time

from . import _memory
from ._memory import MIB
from ._steps import wrap


class _Block:
    """One run of a function or block: a generator or coroutine is entered for each of its steps, and counts once."""

    def __init__(self, owner, key):
        self.owner = owner
        self.key = key
        self.record = None

    def __enter__(self):
        self.owner._depth.level += 1
        if self.record is None:
            self.record = [self.owner._now()]
            with self.owner._writing:
                self.owner.functions.setdefault(self.key, []).append(self.record)
                self.owner.stack.setdefault(self.key, []).append(self.owner._depth.level)
        return self

    def __exit__(self, *exc):
        self.owner._depth.level -= 1
        self.record[1:] = [self.owner._now()]
        return False


class _Depth(threading.local):
    level = -1


class TimeStamper:
    """Notes time and memory at the beginning and end of functions: a decorator, and a maker of named blocks."""

    def __init__(self, backend, include_children=False):
        self.functions = {}
        self.stack = {}
        self.backend = backend
        self.include_children = include_children
        self._depth = _Depth()
        self._writing = threading.Lock()
        self._read = _memory.own_reader(backend, include_children)

    def _now(self):
        return self._read() / MIB, time.time()

    def __call__(self, func=None, precision=None):
        if func is None:
            return lambda f: self(f)
        if isinstance(func, (classmethod, staticmethod)):
            return type(func)(self(func.__func__))
        if isinstance(func, property):
            return property(*[m and self(m) for m in (func.fget, func.fset, func.fdel)], doc=func.__doc__)
        if isinstance(func, type):
            for name, value in list(vars(func).items()):
                if callable(value) and hasattr(value, "__code__") or isinstance(value, (classmethod, staticmethod)):
                    setattr(func, name, self(value))
            return func
        self.add_function(func)
        return self.wrap_function(func)

    def timestamp(self, name="<block>"):
        """A context manager whose body is noted under this name."""

        def key():
            pass

        key.__module__ = ""
        key.__name__ = name
        self.add_function(key)
        return _Block(self, key)

    def add_function(self, func):
        with self._writing:
            self.functions.setdefault(func, [])
            self.stack.setdefault(func, [])

    def wrap_function(self, func):
        """A function of the same kind whose runs are noted."""
        return wrap(func, lambda: (_Block(self, func), None))

    def show_results(self, stream=None):
        """Write a FUNC line for each run that has ended: MiB and seconds at begin and end, and the depth."""
        if stream is None:
            stream = sys.stdout
        for func, records in self.functions.items():
            name = "%s.%s" % (func.__module__, func.__name__)
            for record, level in zip(records, self.stack[func]):
                if len(record) == 2:
                    (memory, begin), (last, end) = record
                    stream.write("FUNC %s %.4f %.4f %.4f %.4f %d\n" % (name, memory, begin, last, end, level))
