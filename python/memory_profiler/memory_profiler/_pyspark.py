"""PySpark's memory profiler of UDFs, which makes a LineProfiler for every call of the UDF.

It adds the tables of all calls up, line by line in Python, which costs more than most UDFs. What is handed over here
at the first call of a task goes on growing at those that follow, and has its figures when the task's result is
pickled. PySpark's own sum, were it handed every call's table, counts n calls as 2 n - 1 and adds up the highest
memory of all calls.
"""
import sys
from collections import OrderedDict

from . import _native
from ._memory import MIB

MODULE = "pyspark.memory_profiler_ext"
MOST = 64

# What grows, by PySpark's accumulator, the number of the UDF and the code objects' addresses.
_growing = OrderedDict()


class Growing:
    """A line's (increment in MiB, highest memory in MiB, occurrences), which are what they are when they are asked for."""

    __slots__ = ("_table", "_line")

    def __init__(self, table, line):
        self._table = table
        self._line = line

    def now(self):
        return self._table.figures()[self._line]

    def __iter__(self):
        return iter(self.now())

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.now()[index]

    def __repr__(self):
        return repr(self.now())

    def __reduce__(self):
        self._table.handed_in = True
        return tuple, (self.now(),)

    def __del__(self):
        self._table.lost = True


class Late:
    """An attribute that is made when it is asked for first."""

    def __init__(self, name, make):
        self.name = name
        self.make = make

    def __get__(self, instance, owner):
        made = instance.__dict__[self.name] = self.make()
        return made


class Calls:
    """The calls of one UDF in one task: an engine whose tables aren't emptied between them."""

    __slots__ = ("engine", "meter", "pause", "on", "lines", "known", "handed_in", "lost")

    def __init__(self, engine):
        self.engine = engine
        self.meter = engine.meter
        self.pause = _native.module().pause
        self.on = False
        self.lines = 0
        self.known = set()
        # What was handed over is pickled, or is no longer there: PySpark has added it to something.
        self.handed_in = False
        self.lost = False

    def put_down(self, code_map, lines):
        """Hands lines over that ran for the first time: there are so many by now."""
        self.lines = lines
        for line in self.figures():
            if line not in self.known:
                code_map[self.engine.heads[line[0]]][line[1]] = Growing(self, line)
                self.known.add(line)

    def figures(self):
        """(increment, highest, occurrences) by (number of the table, line)."""
        return {
            (number, line): ((change + first) / MIB, highest / MIB, occurrences)
            for number, line, change, highest, occurrences, first in self.engine.rows()
        }


def _calls(profiler, frame):
    """The calls that this one is one of; None if that can't be told. `frame`: PySpark's start()."""
    try:
        caller = frame.f_locals["self"]
        if caller._profiler is not profiler:
            return None
        accumulator = caller._accumulator
        key = (id(accumulator), caller._result_key, *map(id, profiler.code_map))
    except (AttributeError, KeyError):
        return None
    found = _growing.get(key)
    if found is not None:
        calls = found[0]
        if not calls.handed_in:
            return None if calls.on or calls.lost else calls
    made = _native.engine(profiler.code_map)
    if made is None:
        return None
    if len(_growing) >= MOST:
        _growing.popitem(last=False)
    calls = Calls(made)
    # The addresses of both must not come to mean others.
    _growing[key] = calls, accumulator
    return calls


def adapt(cls, base):
    """Gives PySpark's class of profilers, a subclass of `base`, its own way to be enabled and disabled."""

    def enable_by_count(self):
        """Measure in the calling thread until as many disable_by_count() follow."""
        if self._calls is not None:
            self._nested += 1
            return
        calls = _calls(self, sys._getframe(1))
        if calls is not None and calls.engine.start():
            calls.on = True
            self._calls = calls
        else:
            base.enable_by_count(self)

    def disable_by_count(self):
        calls = self._calls
        if calls is None:
            base.disable_by_count(self)
        elif self._nested:
            self._nested -= 1
        else:
            # Before anything else: before 3.12 all that runs until then is traced.
            lines = calls.pause(calls.meter)
            calls.on = False
            self._calls = None
            if lines != calls.lines:
                calls.put_down(self.code_map, lines)

    cls._calls = None
    cls._nested = 0
    cls._own_map = False
    for method in (enable_by_count, disable_by_count):
        if method.__name__ not in vars(cls):
            setattr(cls, method.__name__, method)
