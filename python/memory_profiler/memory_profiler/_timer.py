"""MemTimer, and the functions below memory_usage() that clients of memory_profiler import by their names."""
import os
import time
from multiprocessing import Process

from . import _memory, _proc
from ._memory import MIB


def get_memory(pid, backend, timestamps=False, include_children=False, filename=None):
    """MiB of a process, -1 for this one; with `timestamps` (MiB, seconds since the epoch).

    `filename`: of what tracemalloc knows, what was asked for in this file.
    """
    if backend == "tracemalloc":
        found = _memory.traced(filename)
    else:
        # Who asks about another process is no part of it.
        found = _memory.process(pid, backend, include_children, without=_observer(pid))
    return (found / MIB, time.time()) if timestamps else found / MIB


def get_child_memory(process, meminfo_attr=None, memory_metric=0):
    """(pid, MiB) of each descendant of a process: of a pid, or of what has one, like psutil.Process.

    `memory_metric`: "pss" or "uss" instead of resident memory; `meminfo_attr` says nothing that is needed here.
    """
    pid = getattr(process, "pid", process)
    pid = os.getpid() if pid == -1 else pid
    metric = "psutil_" + memory_metric if memory_metric in ("pss", "uss") else "psutil"
    for child, found in _proc.each_child(pid, metric, _observer(pid)):
        yield child, found / MIB


def _observer(pid):
    return () if pid in (-1, os.getpid()) else (os.getpid(),)


class MemTimer(Process):
    """A process that samples another one until it is told to stop.

    `pipe` is one end of a multiprocessing.Pipe. What is sent there: 0 when sampling begins; after something was
    received, the samples (MiB, or (MiB, seconds) with `timestamps=True`) as a list, of one with `max_usage`, then
    their number. `interval`: seconds. `include_children=True` adds descendants. The rest goes to Process.
    """

    def __init__(self, monitor_pid, interval, pipe, backend, max_usage=False, *args, **kw):
        self.monitor_pid = monitor_pid
        self.interval = interval
        self.pipe = pipe
        self.cont = True
        self.backend = backend
        self.max_usage = max_usage
        self.n_measurements = 1
        self.timestamps = kw.pop("timestamps", False)
        self.include_children = kw.pop("include_children", False)
        self.mem_usage = [self._sample()]
        super().__init__(*args, **kw)

    def _sample(self):
        return get_memory(self.monitor_pid, self.backend, self.timestamps, self.include_children)

    def run(self):
        self.pipe.send(0)
        stop = False
        while True:
            sample = self._sample()
            if self.max_usage:
                self.mem_usage[0] = max(self.mem_usage[0], sample)
            else:
                self.mem_usage.append(sample)
            self.n_measurements += 1
            if stop:
                break
            # One more sample is taken after the word to stop.
            stop = self.pipe.poll(self.interval)
        self.pipe.send(self.mem_usage)
        self.pipe.send(self.n_measurements)
