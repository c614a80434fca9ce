"""Line events in C, by the meter of the package `strandline` where that is installed in the same version.

What is measured is what _trace and _monitor measure; tests compare the tables.
"""
import os
import struct
import sys
import threading
from collections import OrderedDict

from . import _memory
from ._codemap import CodeMap
from ._monitor import MONITORING

# The version of both distributions.
VERSION = "0.1.0"
NAME = "strandline-line-meter"
ROW = struct.Struct("6q")
# A function of more lines is left to Python.
MOST_LINES = 100000
# Meters that wait for the next profiler of the same functions; code objects whose events are on.
MOST_IDLE = 64

_loading = threading.Lock()
# Held while events are turned on or off.
_switching = threading.RLock()
_module = None
_idle = OrderedDict()
_listening = OrderedDict()
_tool = None
# Raised whenever events of some code object are turned off.
_generation = 0


def module():
    """The meter's functions, or None where they can't be had."""
    global _module
    if _module is None:
        with _loading:
            if _module is None:
                _module = _load() or False
    return _module or None


def _package():
    """The package `strandline`, or None where it isn't to be used."""
    if os.environ.get("STRANDLINE_NATIVE") == "0" or not sys.platform.startswith("linux"):
        return None
    try:
        import strandline
    except ImportError:
        return None
    return strandline if strandline.__version__ == VERSION else None


def command():
    """The path of the command `strandline`, or None where it isn't to be used."""
    if _package() is None:
        return None
    from strandline import _binary

    try:
        return _binary.path()
    except _binary.Error:
        return None


def _load():
    if _package() is None:
        return None
    try:
        from strandline import _meter

        native = _meter.load()
        statm = _memory.STATM
        statm.listener = lambda fd: native.begin(fd, int(_memory.every_line()))
        statm.ready()
        statm.listener(statm.fd)
        if MONITORING is not None and _claim(native) is None:
            return None
        return native
    except Exception:
        # Whatever is wrong with it: Python does the same, slower.
        return None


def _claim(native):
    """A tool id with the meter's callbacks; None if all ids are in use."""
    global _tool
    for number in (4, 3, 1, 2, 0, 5):
        if MONITORING.get_tool(number) is None:
            break
    else:
        return None
    MONITORING.use_tool_id(number, NAME)
    e = MONITORING.events
    line, start, resume, leave = [native.callback(which, _forget) for which in range(4)]
    for event, callback in (
        (e.LINE, line),
        (e.PY_START, start),
        (e.PY_RESUME, resume),
        (e.PY_THROW, resume),
        (e.PY_RETURN, leave),
        (e.PY_YIELD, leave),
        (e.PY_UNWIND, leave),
    ):
        MONITORING.register_callback(number, event, callback)
    _tool = number
    return number


def _listen(codes):
    """Turns events on in these code objects; the generation they are of, None if there is no tool id. They stay on:
    turning them on or off makes the interpreter go through its code again, and a function that was measured once mostly
    is again. See _forget."""
    e = MONITORING.events
    with _switching:
        if MONITORING.get_tool(_tool) != NAME:
            # Somebody has freed it.
            _listening.clear()
            if _claim(_module) is None:
                return None
        if not _listening:
            # These can't be had for single code objects.
            MONITORING.set_events(_tool, e.PY_UNWIND | e.PY_THROW)
        for code in codes:
            # By identity: code objects that are equal have events of their own. The last are those of this engine.
            if _listening.pop(id(code), None) is None:
                MONITORING.set_local_events(_tool, code, e.LINE | e.PY_START | e.PY_RESUME | e.PY_RETURN | e.PY_YIELD)
            _listening[id(code)] = code
        for code in list(_listening.values())[: -MOST_IDLE - len(codes)]:
            if not _module.bound(code):
                _forget(code)
        return _generation


def _forget(code):
    """No events any more of a code object that nobody measures. The meter calls it for code that runs on and on."""
    global _generation
    with _switching:
        # First of all: an engine that starts now looks at this after its code is bound.
        _generation += 1
        if _module.bound(code) or _listening.pop(id(code), None) is None:
            return
        MONITORING.set_local_events(_tool, code, 0)
        if not _listening:
            MONITORING.set_events(_tool, 0)


def engine(code_map):
    """An engine for these functions; None if Python has to do it."""
    if (
        getattr(code_map.reader, "__func__", None) is not CodeMap.reader
        or code_map.include_children
        or code_map._backend not in ("psutil", "posix")
        or module() is None
    ):
        return None
    return Engine.of(code_map)


class Engine:
    """The tables of one profiler in one thread."""

    def __init__(self, key, codes, heads, begun):
        self.key = key
        self.codes = codes
        # Of each table one of its code objects.
        self.heads = heads
        self.anew = not any(begun)
        self.generation = None
        try:
            self.meter = _idle[key if self.anew else None].pop()[0]
        except (KeyError, IndexError):
            self.meter = self._new(begun)

    @classmethod
    def of(cls, code_map):
        key = []
        codes = []
        heads = []
        begun = []
        numbers = {}
        for code, lines in dict.items(code_map):
            number = numbers.setdefault(id(lines), len(heads))
            if number == len(heads):
                heads.append(code)
                begun.append(bool(lines))
            codes.append(code)
            key.append(id(code))
            key.append(number)
        made = cls(tuple(key), codes, heads, begun)
        return made if made.meter else None

    def _new(self, begun):
        ranges = [[1 << 31, 0] for _ in self.heads]
        for code, number in zip(self.codes, self.key[1::2]):
            packed = _module.lines(code)
            ranges[number][0] = min(ranges[number][0], packed >> 32)
            ranges[number][1] = max(ranges[number][1], packed & 0xFFFFFFFF)
        if sum(last - first for first, last in ranges) > MOST_LINES:
            return 0
        what = [len(self.heads), len(self.codes)]
        for (first, last), has_begun in zip(ranges, begun):
            what += (first, last, int(has_begun))
        for code, number in zip(self.codes, self.key[1::2]):
            what += (code, number)
        return _module.new(*what)

    def start(self):
        """False if another tool has its trace function in this thread, or others have all tool ids."""
        if _module.start(self.meter, self.anew) and self._listens():
            self.anew = False
            return True
        _module.pause(self.meter)
        return False

    def _listens(self):
        if MONITORING is not None and self.generation != _generation:
            self.generation = _listen(self.codes)
        return MONITORING is None or self.generation is not None

    def stop(self):
        self.told = _module.stop(self.meter)

    def rows(self):
        """What was measured: (number of the table, line, change, highest, occurrences, memory at first) of each line."""
        return ROW.iter_unpack(_module.told(self.meter) or b"")

    def put_down(self, code_map):
        """Adds what was measured to the code map."""
        if self.told is None:
            return
        tables = {}
        for number, line, change, highest, occurrences, first in ROW.iter_unpack(self.told):
            tables.setdefault(number, {})[line] = change, highest, occurrences, first
        self.told = None
        for number, entries in tables.items():
            code_map.merge(code_map[self.heads[number]], entries)

    def __del__(self):
        if not getattr(self, "meter", 0) or _module is None or sys.is_finalizing():
            return
        _module.stop(self.meter)
        waiting = _idle.setdefault(self.key, [])
        if len(waiting) < 4:
            # The key has the code objects' addresses, which must not come to mean others.
            waiting.append((self.meter, self.codes))
        else:
            _module.drop(self.meter)
        while len(_idle) > MOST_IDLE:
            for meter, _ in _idle.popitem(last=False)[1]:
                _module.drop(meter)
