"""memory_usage(): samples of a process, or of this one while a function runs."""
import os
import subprocess
import sys
import threading
import time

from . import _memory, _proc
from ._memory import MIB
from ._sampler import sampler as _sampler_command

# A call is repeated, ten times as closely sampled each time, until there are more samples than this.
ENOUGH = 4
SHORTEST = 1e-6


class _Helper:
    """A process of its own that samples this one: no GIL, no copy of this process's memory."""

    def __init__(self, backend, include_children):
        # By source and not by path: the package may be in a zip file.
        source = _proc.__loader__.get_source(_proc.__name__)
        environ = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source, str(os.getpid()), backend, str(int(include_children))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,  # a Ctrl-C is not for it
            universal_newlines=True,
        )

    def _say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process that samples this one has ended (%s)" % sys.executable)
        return line

    def start(self, interval):
        self._say(repr(float(interval)))

    def stop(self):
        """(bytes, time) of every sample since start()."""
        pairs = [sample.split(":") for sample in self._say("stop").split()]
        return [(int(n), float(when)) for n, when in pairs]

    def close(self):
        self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class _Thread:
    """What only this process can measure is sampled by a thread of it."""

    def __init__(self, read):
        self.read = read

    def _sample(self):
        self.samples.append((self.read(), time.time()))

    def start(self, interval):
        self.samples = []
        self.ended = threading.Event()
        self._sample()
        self.thread = threading.Thread(target=self._run, args=(interval,))
        self.thread.daemon = True
        self.thread.start()

    def _run(self, interval):
        while not self.ended.wait(interval):
            self._sample()

    def stop(self):
        self.ended.set()
        self.thread.join()
        self._sample()
        return self.samples

    def close(self):
        self.ended.set()


def _sampler(backend, include_children):
    if backend == "tracemalloc":
        _memory.start_tracemalloc()
        return _Thread(_memory.own_reader(backend))
    quick = _sampler_command() if backend in ("psutil", "posix") and not include_children else None
    if quick is not None:
        return quick
    if sys.executable:
        return _Helper(backend, include_children)
    return _Thread(_memory.own_reader(backend, include_children))


def _call(proc):
    if not isinstance(proc, (list, tuple)):
        return proc, (), {}
    if not 1 <= len(proc) <= 3:
        raise ValueError("a function to be measured is given as f, (f,), (f, args) or (f, args, kw)")
    args = proc[1] if len(proc) > 1 else ()
    kw = proc[2] if len(proc) > 2 else {}
    return proc[0], args, kw


def _of_call(proc, interval, backend, include_children, max_usage, iterations):
    """Samples of the last of the calls, and what it returned."""
    f, args, kw = _call(proc)
    exact = max_usage and backend in ("psutil", "posix") and not include_children
    sampler = _sampler(backend, include_children)
    done = 0
    try:
        while True:
            before = _proc.peak() if exact else 0
            sampler.start(interval)
            returned = f(*args, **kw)
            samples = sampler.stop()
            done += 1
            if len(samples) > ENOUGH or interval < SHORTEST or (iterations and done >= iterations):
                break
            interval /= 10.0
    finally:
        sampler.close()
    if exact:
        # A new highest RSS of the process is one of this call, and the kernel misses none between two samples.
        highest = _proc.peak()
        if highest > before and highest > max(samples)[0]:
            samples.append((highest, samples[-1][1]))
    return samples, returned


def _write(stream, taken, children):
    stream.write("MEM {0:.6f} {1:.4f}\n".format(taken[0] / MIB, taken[1]))
    for child, n in children:
        stream.write("CHLD {0} {1:.6f} {2:.4f}\n".format(child, n / MIB, taken[1]))


def _of_process(proc, interval, count, backend, include_children, multiprocess, stream):
    """[(bytes, time, [bytes of each child])]; written to the stream instead if there is one."""
    popen = hasattr(proc, "poll")
    pid = proc.pid if popen else proc
    own = os.getpid() if pid == -1 else pid
    found = []
    taken = 0
    while True:
        try:
            n = _memory.process(pid, backend, include_children)
        except Exception:
            # psutil's class for this isn't known here, and one that ended is no error after the first sample.
            if (taken or popen) and not os.path.exists("/proc/%d" % own):
                break
            raise
        now = time.time()
        children = _proc.each_child(own, backend) if multiprocess else []
        if stream is not None:
            _write(stream, (n, now), children)
            stream.flush()
        else:
            found.append((n, now, [c for _, c in children]))
        taken += 1
        if count is not None and taken >= count:
            break
        if popen:
            try:
                proc.wait(interval)
                break
            except subprocess.TimeoutExpired:
                pass
        else:
            time.sleep(interval)
    return found


def memory_usage(
    proc=-1,
    interval=0.1,
    timeout=None,
    timestamps=False,
    include_children=False,
    multiprocess=False,
    max_usage=False,
    retval=False,
    stream=None,
    backend=None,
    max_iterations=None,
):
    """Memory of a process, or of this one while a function runs, in MiB.

    `proc` is a pid, -1 for this process, a subprocess.Popen, or what to call: `f`, `(f,)`, `(f, args)` or
    `(f, args, kw)`. A call that was too short for five samples is repeated with an interval of a tenth, unless
    `max_iterations` or an interval below 1e-6 s ends that.

    `interval`: seconds between samples. `timeout`: how many seconds a process is watched; without it a pid gives one
    sample, and a Popen is watched to its end. `timestamps`: each sample as (MiB, seconds since the epoch).
    `include_children`: descendants are added. `multiprocess`: descendants are given beside their parent, as
    [parent, child...]. `max_usage`: the highest sample only; of a call it is the exact peak whenever the process had
    never been larger. `retval`: (result, what the function returned). `stream`: samples are written to it as
    `MEM` and `CHLD` lines instead, and None is returned. `backend`: psutil or posix (RSS), exact (RSS counted page by
    page), psutil_pss, psutil_uss, tracemalloc.
    """
    backend = _memory.choose_backend(backend)
    count = None
    if timeout is not None:
        count = max(1, int(round(timeout / interval)))
    elif isinstance(proc, int):
        count = 1

    if callable(proc) or isinstance(proc, (list, tuple)):
        # Of a call `timeout` limits how often it is repeated.
        limits = [n for n in (count, max_iterations) if n]
        samples, returned = _of_call(
            proc, interval, backend, include_children, max_usage, min(limits) if limits else None
        )
        if stream is not None:
            for sample in samples:
                _write(stream, sample, ())
            return (None, returned) if retval else None
        result = [(n / MIB, when) if timestamps else n / MIB for n, when in samples]
        if max_usage:
            result = max(result)
        return (result, returned) if retval else result

    if not isinstance(proc, int) and not hasattr(proc, "pid"):
        raise TypeError("proc is a pid, a Popen or something to call, not %r" % (proc,))
    found = _of_process(proc, interval, count, backend, include_children, multiprocess, stream)
    if stream is not None:
        return None
    result = []
    for n, when, children in found:
        parent = (n / MIB, when) if timestamps else n / MIB
        result.append([parent] + [c / MIB for c in children] if multiprocess else parent)
    if max_usage:
        result = _highest(found, timestamps)
    return result


def _highest(found, timestamps):
    if not found:
        return (0.0, time.time()) if timestamps else 0.0
    n, when = max((max([n] + children), when) for n, when, children in found)
    return (n / MIB, when) if timestamps else n / MIB
