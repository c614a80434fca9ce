"""CodeMap: the lines of the profiled functions and what was measured on them."""
import inspect
import os
import threading
from types import CodeType

from . import _memory
from ._memory import MIB

# inspect parses a whole file to find one function's lines, and the decorator asks at every call.
_LINES = {}
# One for all: PySpark makes a map for every call of a function.
_MERGING = threading.Lock()


def _source_lines(code):
    found = _LINES.get(code)
    if found is None:
        try:
            lines, start = inspect.getsourcelines(code)
            found = range(start, start + len(lines))
        except (OSError, IndexError, SyntaxError):
            # Without a source file: the lines that the code itself names.
            found = sorted(set(_named_lines(code)))
        _LINES[code] = found
    return found


def _named_lines(code):
    from dis import findlinestarts

    yield code.co_firstlineno
    for _, line in findlinestarts(code):
        if line:
            yield line
    for const in code.co_consts:
        if isinstance(const, CodeType):
            for line in _named_lines(const):
                yield line


# "0": the first line of a function has no increment but its own, in programs that don't say which they want.
VARIABLE = "MEMORY_PROFILER_BASELINE"


class CodeMap(dict):
    """{code object: {line: (increment in MiB, highest memory in MiB, occurrences)}}.

    `baseline`: whether the whole memory before a function counts as an increment of its first line, as in
    memory_profiler; None: as MEMORY_PROFILER_BASELINE says.
    """

    baseline = None

    def __init__(self, include_children, backend):
        self.include_children = include_children
        self._backend = backend
        self._toplevel = []

    def add(self, code, toplevel_code=None):
        """Measure this code object and those inside it, which count into the outer one's table."""
        if code in self:
            return
        if toplevel_code is None:
            filename = code.co_filename
            if filename.endswith((".pyc", ".pyo")):
                filename = filename[:-1]
            self._toplevel.append((filename, code, _source_lines(code)))
            self[code] = {}
        else:
            self[code] = self[toplevel_code]
        for const in code.co_consts:
            if isinstance(const, CodeType):
                self.add(const, toplevel_code=toplevel_code or code)

    def has_baseline(self):
        if self.baseline is None:
            return os.environ.get(VARIABLE) != "0"
        return self.baseline

    def reader(self, code):
        """What measures the process on a line of this code: a function that returns bytes."""
        return _memory.own_reader(self._backend, self.include_children, code.co_filename)

    def trace(self, code, lineno, prev_lineno):
        """Measure now and put it down for the line, as a change since the line before.

        For callers of their own: the profiler puts down what it measured with merge().
        """
        memory = self.reader(code)() / MIB
        before = self[code].get(prev_lineno, (0.0, 0.0, 0))[1] if prev_lineno else 0.0
        self._put(self[code], lineno, memory - before, memory, 1)

    def merge(self, lines, entries):
        """Add a thread's [increment, highest, occurrences, first] by line, in bytes, to a table."""
        with _MERGING:
            for line, (increment, highest, occurrences, first) in entries.items():
                if first and line not in lines and self.has_baseline():
                    # The line of `def` has the whole memory before the function: the table's starting point.
                    increment += first
                self._put(lines, line, increment / MIB, highest / MIB, occurrences)

    @staticmethod
    def _put(lines, line, increment, memory, occurrences):
        old = lines.get(line)
        if old is not None:
            increment += old[0]
            memory = max(memory, old[1])
            occurrences += old[2]
        lines[line] = (increment, memory, occurrences)

    def items(self):
        """(file name, iterator of (line, measured or None)) of each function that ran."""
        for filename, code, linenos in self._toplevel:
            measured = self[code]
            if measured:
                yield filename, ((line, measured.get(line)) for line in linenos)
