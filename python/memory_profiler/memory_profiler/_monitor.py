"""Line events of Python 3.12 and later: sys.monitoring, in the profiled code objects only."""
import sys
import threading
from threading import get_ident
from time import perf_counter

from ._trace import put_down

MONITORING = getattr(sys, "monitoring", None)
NAME = "strandline-memory-profiler"

# Taken by __del__ as well, which may run in a thread that has it.
_lock = threading.RLock()
_tool = None
# Tables by code object, of the threads that profile now. A thread only ever changes its own.
_threads = {}
_users = {}


def _claim():
    """A tool id of our own; None if all are in use."""
    global _tool
    if _tool is not None and MONITORING.get_tool(_tool) == NAME:
        return _tool
    # The low numbers are customary for debuggers and coverage.
    for number in (4, 3, 1, 2, 0, 5):
        if MONITORING.get_tool(number) is None:
            MONITORING.use_tool_id(number, NAME)
            break
    else:
        return None
    _tool = number
    e = MONITORING.events
    for event, callback in (
        (e.LINE, _line),
        (e.PY_START, _start),
        (e.PY_RESUME, _resume),
        (e.PY_THROW, _resume),
        (e.PY_RETURN, _leave),
        (e.PY_YIELD, _leave),
        (e.PY_UNWIND, _leave),
    ):
        MONITORING.register_callback(number, event, callback)
    return number


class Monitor:
    """Tables by code object, fed by sys.monitoring in the thread that starts it."""

    def __init__(self, tables, tool):
        self.tables = tables
        self.tool = tool
        self.listening = False

    @classmethod
    def of(cls, tables):
        """None if every tool id is taken."""
        if MONITORING is None:
            return None
        with _lock:
            tool = _claim()
        return None if tool is None else cls(tables, tool)

    def start(self):
        self._listen()
        by_code = _threads.setdefault(get_ident(), {})
        for code, table in self.tables.items():
            by_code[code] = by_code.get(code, ()) + (table,)

    def stop(self):
        thread = get_ident()
        by_code = _threads.get(thread, {})
        for code, table in self.tables.items():
            left = tuple(t for t in by_code.get(code, ()) if t is not table)
            if left:
                by_code[code] = left
            else:
                by_code.pop(code, None)
        if not by_code:
            _threads.pop(thread, None)

    def put_down(self, code_map):
        put_down(self.tables, code_map)

    def _listen(self):
        if self.listening:
            return
        self.listening = True
        e = MONITORING.events
        with _lock:
            for code in self.tables:
                _users[code] = _users.get(code, 0) + 1
                if _users[code] == 1:
                    MONITORING.set_local_events(
                        self.tool, code, e.LINE | e.PY_START | e.PY_RESUME | e.PY_RETURN | e.PY_YIELD
                    )
            # These can't be had for single code objects.
            MONITORING.set_events(self.tool, e.PY_UNWIND | e.PY_THROW)

    def __del__(self):
        # Events are left on between two calls: turning them on or off makes the interpreter go through its code again.
        if not self.listening or sys.is_finalizing():
            return
        with _lock:
            for code in self.tables:
                _users[code] -= 1
                if _users[code] == 0:
                    del _users[code]
                    MONITORING.set_local_events(self.tool, code, 0)
            if not _users:
                MONITORING.set_events(self.tool, 0)


def _tables(code):
    by_code = _threads.get(get_ident())
    return by_code.get(code, ()) if by_code else ()


def _line(code, line):
    by_code = _threads.get(get_ident())
    if by_code is None:
        return
    for table in by_code.get(code, ()):
        owners = table.owners
        if not owners or owners[-1] is not code:
            table.enter(code, line)
            continue
        # The running line ends, and this one begins: the hot path, written out here and in _trace.
        stack = table.stack
        entry = stack[-1]
        if perf_counter() - table.since > table.quiet:
            memory = table.read()
            entry[0] += memory - table.last
            table.last = memory
        if table.last > entry[1]:
            entry[1] = table.last
        entry[2] += 1
        stack[-1] = table.entries.get(line) or table.entry(line)
        table.since = perf_counter()


def _start(code, offset):
    for table in _tables(code):
        table.begin(code, code.co_firstlineno)


def _resume(code, offset, *exception):
    for table in _tables(code):
        table.resume(code, sys._getframe(1).f_lineno)


def _leave(code, offset, value):
    for table in _tables(code):
        if table.owners and table.owners[-1] is code:
            table.leave()
