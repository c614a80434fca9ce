"""Backends: what is measured, by name, for the own process at high frequency and for any process."""
import mmap
import os
import warnings
from time import perf_counter

from . import _proc

MIB = float(1 << 20)
BACKENDS = ("psutil", "psutil_pss", "psutil_uss", "posix", "tracemalloc", "exact")


def choose_backend(new_backend=None):
    """The backend of this name; the default, resident memory, if there is no name.

    Raises KeyError for a name that isn't one.
    """
    name = new_backend or "psutil"
    if name not in BACKENDS:
        raise KeyError("no such backend: %r; there are %s" % (name, ", ".join(BACKENDS)))
    return name


def _cheapest_fault():
    """Seconds that the kernel takes at least to give this process one page."""
    pages = 64
    area = mmap.mmap(-1, pages * _proc.PAGE)
    try:
        cheapest = []
        for _ in range(2):  # the first round faults, the second is the same without
            took = []
            for at in range(0, pages * _proc.PAGE, _proc.PAGE):
                begin = perf_counter()
                area[at] = 1
                took.append(perf_counter() - begin)
            cheapest.append(min(took))
    finally:
        area.close()
    return max(0.0, cheapest[0] - cheapest[1])


_quiet = None


def every_line():
    """True if every line is to be measured, even those that are too short to have changed anything."""
    return bool(os.environ.get("STRANDLINE_EVERY_LINE"))


def quiet():
    """Seconds in which resident memory can't change: half of what the cheapest page fault takes.

    A page comes with a fault and goes with a system call that costs more. A line that took less has changed nothing,
    and needn't be measured.
    """
    global _quiet
    if _quiet is None:
        _quiet = -1.0 if every_line() else _cheapest_fault() / 2
    return _quiet


class _Statm:
    """/proc/self/statm, kept open: opening it costs more than reading it."""

    def __init__(self):
        self.pid = None
        self.fd = -1
        # Called with the descriptor when that is a new one.
        self.listener = None

    def reopen(self):
        """After a fork the descriptor still shows the parent."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = os.open("/proc/self/statm", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.pid = os.getpid()
        if self.listener is not None:
            self.listener(self.fd)

    def ready(self):
        if self.pid != os.getpid():
            self.reopen()

    def reader(self):
        """A function without arguments that returns the RSS of this process in bytes."""
        self.ready()
        pread = os.pread
        page = _proc.PAGE
        statm = self

        def read():
            try:
                return int(pread(statm.fd, 96, 0).split()[1]) * page
            except (OSError, IndexError):
                # The program closed descriptors that it doesn't know, and perhaps uses the number again.
                statm.fd = -1
                statm.reopen()
                return int(pread(statm.fd, 96, 0).split()[1]) * page

        read.quiet = quiet()
        return read


STATM = _Statm()
_HOOKED = hasattr(os, "register_at_fork")
if _HOOKED:
    # A child that never measures opens nothing.
    def _in_child():
        if STATM.pid is not None:
            STATM.reopen()

    os.register_at_fork(after_in_child=_in_child)


def after_a_fork():
    """Where there is no hook for it (Python 3.6), called before readers that were made earlier are used again."""
    if not _HOOKED and STATM.pid is not None:
        STATM.ready()


def traced(filename=None):
    """Bytes that tracemalloc knows to be alive, asked for in `filename` if one is given."""
    import tracemalloc

    if not tracemalloc.is_tracing():
        tracemalloc.start()
        warnings.warn("tracemalloc was off: it was started, and knows nothing of what is older")
    if filename is None or filename == "<unknown>":
        return tracemalloc.get_traced_memory()[0]
    if filename.endswith((".pyc", ".pyo")):
        filename = filename[:-1]
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, filename)])
    return sum(trace.size for trace in snapshot.traces)


def own_reader(backend="psutil", include_children=False, filename=None):
    """A function without arguments that measures this process, in bytes."""
    backend = choose_backend(backend)
    if backend == "tracemalloc":
        return lambda: traced(filename)
    if backend in ("psutil", "posix") and not include_children:
        return STATM.reader()
    return lambda: _proc.measure(os.getpid(), backend, include_children)


def _no_such_process(pid):
    # Clients catch what the original raises, which is psutil's; a program without psutil can't.
    try:
        import psutil
    except ImportError:
        return ProcessLookupError("no process with the pid %d" % pid)
    return psutil.NoSuchProcess(pid, msg="process PID not found")


def process(pid, backend="psutil", include_children=False, without=()):
    """Bytes of a process; -1 is this one. Raises if there is none with this number."""
    if pid == -1:
        pid = os.getpid()
    if backend == "tracemalloc":
        if pid != os.getpid():
            raise ValueError("tracemalloc can only look at its own process, not at %d" % pid)
        return traced()
    try:
        return _proc.measure(pid, backend, include_children, without)
    except (OSError, IndexError):
        if os.path.exists("/proc/%d" % pid):
            raise
        raise _no_such_process(pid)


def start_tracemalloc():
    import tracemalloc

    if not tracemalloc.is_tracing():
        tracemalloc.start()
