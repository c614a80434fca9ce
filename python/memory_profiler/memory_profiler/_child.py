"""Processes that multiprocessing starts below `python -m memory_profiler`: the builtin `profile`, and their tables.

A child ends in ways that run nothing of ours (a pool kills its workers), so it puts its tables into a file after every
outermost call of a profiled function. The program's process puts the files together at its end.
"""
import atexit
import builtins
import json
import os
import threading

from ._profiler import LineProfiler


class Followed(LineProfiler):
    """The profiler of a program and of its children: in these `report` is where tables go."""

    report = None

    def disable(self):
        super().disable()
        if self.report is not None:
            self.report.write(self.code_map)

    def begin_in_child(self, directory):
        """After a fork: what the parent measured, and the calls that it is in, are the parent's."""
        self.report = None
        while self.enable_count:
            self.disable_by_count()
        self._thread = type(self._thread)()
        for lines in dict.values(self.code_map):
            lines.clear()
        self.code_map.baseline = False
        self.report = Report(directory)


class Report:
    """The file with the tables of one process. A process that can't write it goes on without."""

    def __init__(self, directory):
        self.directory = directory
        # A number of a process that ended may be given again.
        self.path = os.path.join(directory, "%d-%s" % (os.getpid(), os.urandom(4).hex()))
        self.writing = threading.Lock()

    def write(self, code_map):
        tables = []
        for filename, code, numbers in code_map._toplevel:
            if code_map[code]:
                lines = sorted(code_map[code].items())
                tables.append([filename, code.co_firstlineno, code.co_name, list(numbers), lines])
        with self.writing:
            try:
                if not os.path.isdir(self.directory):
                    self._make()
                with open(self.path + ".new", "w") as f:
                    json.dump(tables, f)
                os.rename(self.path + ".new", self.path)
            except OSError:
                pass

    def _make(self):
        try:
            os.mkdir(self.directory, 0o700)
        except FileExistsError:
            # Another child was faster.
            pass


class Children:
    """The tables of all children, put together: increments and occurrences are sums, memory is the highest."""

    def __init__(self, directory, baseline):
        self.processes = 0
        self.code_map = self
        self._tables = {}
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            # Half of one is what was being written when its process was killed.
            if not name.endswith(".new"):
                with open(path) as f:
                    self._add(json.load(f))
            os.unlink(path)
        try:
            os.rmdir(directory)
        except OSError:
            # A process that nobody waited for still writes.
            pass
        if baseline:
            for (_, first, _), (_, lines) in self._tables.items():
                if first in lines:
                    lines[first][0] += lines[first][1]

    def _add(self, tables):
        self.processes += 1
        for filename, first, name, numbers, lines in tables:
            into = self._tables.setdefault((filename, first, name), (numbers, {}))[1]
            for line, (increment, memory, occurrences) in lines:
                sums = into.setdefault(line, [0.0, 0.0, 0])
                sums[0] += increment
                sums[1] = max(sums[1], memory)
                sums[2] += occurrences

    def heading(self):
        return "Processes started by multiprocessing: %d, their increments and occurrences added up\n\n" % self.processes

    def items(self):
        """As CodeMap.items()."""
        for (filename, _, _), (numbers, lines) in sorted(self._tables.items()):
            yield filename, ((number, lines.get(number)) for number in numbers)


def make_known(directory, options):
    """Called in a child that starts afresh, before it runs the program's main module again."""
    if not hasattr(builtins, "profile"):
        profiler = Followed(**options)
        builtins.__dict__["profile"] = profiler
        profiler.begin_in_child(directory)
        _follow(profiler, directory, options)


class _Announcement:
    """Unpickled by the child with what else it is told; no key of multiprocessing's own is touched."""

    def __init__(self, *told):
        self.told = told

    def __reduce__(self):
        return make_known, self.told


def _follow(profiler, directory, options):
    from multiprocessing import spawn, util

    prepare = spawn.get_preparation_data

    def get_preparation_data(name):
        data = prepare(name)
        data["memory_profiler"] = _Announcement(directory, options)
        return data

    spawn.get_preparation_data = get_preparation_data
    if isinstance(profiler, Followed):
        util.register_after_fork(profiler, lambda one: one.begin_in_child(directory))


def follow_multiprocessing(profiler, options, show):
    """From now on children have the builtin, and at the end `show` is called with their tables, if there are any.

    `options`: how the children's profilers are made.
    """
    temporary = os.environ.get("TMPDIR") or "/tmp"
    directory = os.path.join(temporary, "memory_profiler-%d-%s" % (os.getpid(), os.urandom(8).hex()))
    own = os.getpid()

    def at_exit():
        # A child that was forked has its parent's handlers.
        if os.getpid() == own and os.path.isdir(directory):
            children = Children(directory, profiler.code_map.has_baseline())
            show(children, children.heading())

    if isinstance(profiler, Followed):
        # Handlers run in the order opposite to this: multiprocessing waits for its children in one that comes later.
        atexit.register(at_exit)
    _follow(profiler, directory, options)
