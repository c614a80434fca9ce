"""Line events of one thread, from sys.settrace, folded into tables."""
import sys
from time import perf_counter

_NEW_GENERATORS = sys.version_info >= (3, 11)


class Table:
    """One thread's measurements in one function and the code inside it.

    An entry is [change, highest, occurrences, memory at the first call], in bytes. A change is put down for the
    line that was running, as the difference to the last reading in this table: whatever the line calls is part
    of it, but for code that is in the table itself, which has put down its own.
    """

    __slots__ = ("entries", "read", "quiet", "since", "stack", "owners", "last", "begun")

    def __init__(self, read, begun):
        self.entries = {}
        self.read = read
        # Within so many seconds after `since` the memory can't have changed.
        self.quiet = getattr(read, "quiet", -1.0)
        self.since = 0.0
        self.stack = []
        self.owners = []
        self.last = 0
        # Whether the table has its starting point: no other call has one.
        self.begun = begun

    def renew(self, begun):
        """Empty, for the next time."""
        self.entries.clear()
        del self.stack[:]
        del self.owners[:]
        self.begun = begun

    def entry(self, line):
        found = self.entries.get(line)
        if found is None:
            found = self.entries[line] = [0, 0, 0, 0]
        return found

    def begin(self, owner, line):
        """A function begins at the line of its `def` or first decorator."""
        entry = self.enter(owner, line)
        if not self.begun:
            self.begun = True
            entry[3] = self.last
        if self.last > entry[1]:
            entry[1] = self.last

    def resume(self, owner, line):
        """A frame goes on after a yield or await; the line was counted when it yielded."""
        self.enter(owner, line)[2] -= 1

    def enter(self, owner, line):
        """A frame runs from here on, in this line."""
        memory = self.read()
        if self.stack:
            # Until here it was the line that called.
            caller = self.stack[-1]
            caller[0] += memory - self.last
            if memory > caller[1]:
                caller[1] = memory
        # Between calls the memory is anybody's.
        self.last = memory
        self.since = perf_counter()
        entry = self.entry(line)
        self.stack.append(entry)
        self.owners.append(owner)
        return entry

    def leave(self):
        """The running line ends, and its frame with it or until it goes on."""
        memory = self.read()
        self.owners.pop()
        entry = self.stack.pop()
        entry[0] += memory - self.last
        self.last = memory
        if memory > entry[1]:
            entry[1] = memory
        entry[2] += 1
        self.since = perf_counter()


def put_down(tables, code_map):
    """Adds what tables by code object have to the code map, and empties them."""
    for code, table in tables.items():
        # A table that has been emptied is that of a code object before.
        if table.entries:
            code_map.merge(code_map[code], table.entries)
            table.renew(True)


def _begins(frame):
    if _NEW_GENERATORS:
        # RESUME says with its argument what it resumes: 0 is the start of a function.
        return frame.f_code.co_code[frame.f_lasti + 1] == 0
    return frame.f_lasti < 0


class SetTrace:
    """Tables by code object, fed by sys.settrace in the thread that starts it."""

    def __init__(self, tables):
        self.tables = tables
        self.previous = None
        self.function = None

    def start(self):
        previous = sys.gettrace()
        if self.function is None or previous is not self.previous:
            self.previous = previous
            self.function = self._global()
        sys.settrace(self.function)

    def stop(self):
        if sys.gettrace() is self.function:
            sys.settrace(self.previous)

    def put_down(self, code_map):
        put_down(self.tables, code_map)

    def _global(self):
        locals_ = {}
        made = {}
        for code, table in self.tables.items():
            # One function for a table, whatever number of code objects it has.
            if table not in made:
                made[table] = _local(table)
            locals_[code] = made[table]
        get = locals_.get
        previous = self.previous
        if previous is None:

            def trace(frame, event, arg):
                local = get(frame.f_code)
                if local is not None:
                    local(frame, "call", arg)
                return local

            return trace

        def chained(frame, event, arg):
            theirs = previous(frame, event, arg)
            local = get(frame.f_code)
            if local is None:
                return theirs
            local(frame, "call", arg)
            return _both(local, theirs) if theirs is not None else local

        return chained


def _both(ours, theirs):
    def local(frame, event, arg):
        nonlocal theirs
        ours(frame, event, arg)
        if theirs is not None:
            theirs = theirs(frame, event, arg)
        return local

    return local


def _local(table):
    stack = table.stack
    owners = table.owners
    entries = table.entries
    read = table.read
    quiet = table.quiet

    def local(frame, event, arg):
        if event == "line":
            if not owners or owners[-1] is not frame:
                table.enter(frame, frame.f_lineno)
                return local
            # The running line ends, and this one begins: the hot path, written out here and in _monitor.
            entry = stack[-1]
            if perf_counter() - table.since > quiet:
                memory = read()
                entry[0] += memory - table.last
                table.last = memory
                if memory > entry[1]:
                    entry[1] = memory
            elif table.last > entry[1]:
                entry[1] = table.last
            entry[2] += 1
            line = frame.f_lineno
            stack[-1] = entries.get(line) or table.entry(line)
            table.since = perf_counter()
        elif event == "return":
            # An exception thrown into a generator ends it without its having begun to go on.
            if owners and owners[-1] is frame:
                table.leave()
        elif event == "call":
            if _begins(frame):
                table.begin(frame, frame.f_code.co_firstlineno)
            else:
                table.resume(frame, frame.f_lineno)
        return local

    return local
