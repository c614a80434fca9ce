"""memory_usage: resident memory over time, of a process or while a function runs."""

import os
import subprocess
import tempfile
import time

from . import _binary, _memory
from ._memory import MIB


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
    """Resident memory, in MiB, of a process or while a function runs.

    proc: a process id, -1 for this process, a `subprocess.Popen`, a function, or a tuple ``(f, args, kwargs)``
    of which the last two may be missing. A function runs once, whatever its length; it is watched from
    outside, so that it is seen while it holds the GIL.

    interval: seconds between samples. timeout: seconds to watch a process, which is looked at once
    without. timestamps: samples are ``(MiB, seconds since 1970)``. include_children: the sum with all
    descendants. multiprocess: descendants one by one. max_usage: only the highest; of a function it is
    the kernel's own peak where the function has raised that. retval: ``(usage, what the function
    returned)``. stream: lines ``MEM ...`` and ``CHLD ...`` are written to it, nothing is returned.

    backend and max_iterations are accepted for code that was written for memory_profiler.
    """
    look = _Look(interval, timestamps, include_children, multiprocess, max_usage, stream)
    if callable(proc) or isinstance(proc, (list, tuple)):
        usage, returned = _of_function(look, proc)
        return (usage, returned) if retval else usage
    if hasattr(proc, "poll") and hasattr(proc, "pid"):
        return look.answer(_of_popen(look, proc, timeout))
    pid = os.getpid() if proc in (-1, None) else int(proc)
    return look.answer(_of_pid(look, pid, timeout))


class _Look(object):
    def __init__(self, interval, timestamps, include_children, multiprocess, max_usage, stream):
        self.interval = float(interval)
        self.timestamps = timestamps
        self.sums = include_children and not multiprocess
        self.apart = multiprocess
        self.max_usage = max_usage
        self.stream = stream
        # The order in which children were seen first.
        self.known = []

    def now(self, pid):
        """A sample: (time, bytes, [(child, bytes)])."""
        rss = _memory.resident(pid)
        below = []
        for child in _memory.children(pid) if self.sums or self.apart else ():
            try:
                below.append((child, _memory.resident(child)))
            except OSError:
                pass
        return time.time(), rss, below

    def answer(self, samples, peak=None):
        """What memory_usage returns for these samples. peak: bytes, if it is known better."""
        rows = [self._row(sample) for sample in samples]
        if self.stream is not None:
            for row in rows:
                self._write(row)
            return None
        if self.max_usage:
            return self._highest(rows, peak)
        if self.apart:
            return [[self._value(row[0], row[2])] + [self._value(b, row[2]) for _, b in row[1]] for row in rows]
        return [self._value(row[0], row[2]) for row in rows]

    def _row(self, sample):
        when, rss, below = sample
        if self.sums:
            rss += sum(bytes_ for _, bytes_ in below)
        return rss / MIB, [(pid, bytes_ / MIB) for pid, bytes_ in below] if self.apart else [], when

    def _value(self, mib, when):
        return (mib, when) if self.timestamps else mib

    def _highest(self, rows, peak):
        if not rows:
            return None
        highest, _, when = max(rows, key=lambda row: row[0])
        if peak is not None and not self.sums:
            highest = max(highest, peak / MIB)
        return self._value(highest, when)

    def _write(self, row):
        mib, below, when = row
        self.stream.write("MEM {0:.6f} {1:.4f}\n".format(mib, when))
        for pid, bytes_ in below:
            if pid not in self.known:
                self.known.append(pid)
            number = self.known.index(pid)
            self.stream.write("CHLD {0} {1:.6f} {2:.4f}\n".format(number, bytes_, when))


def _of_pid(look, pid, timeout):
    count = 1 if timeout is None else max(int(round(timeout / look.interval)), 1) if look.interval > 0 else 1
    samples = []
    for number in range(count):
        if number:
            time.sleep(look.interval)
        try:
            samples.append(look.now(pid))
        except OSError:
            break
    return samples


def _of_popen(look, process, timeout):
    end = None if timeout is None else time.time() + timeout
    samples = []
    while process.poll() is None:
        try:
            samples.append(look.now(process.pid))
        except OSError:
            break
        if end is not None and time.time() >= end:
            break
        time.sleep(look.interval)
    return samples


def _of_function(look, proc):
    f, args, kwargs = _call_of(proc)
    before = _memory.highest()
    with tempfile.TemporaryFile() as out:
        sampler = _start(look, out)
        try:
            returned = f(*args, **kwargs)
            last = look.now(os.getpid())
        finally:
            # The end of its input is the sampler's end.
            sampler.stdin.close()
            errors = sampler.stderr.read()
            sampler.stderr.close()
            sampler.wait()
        if sampler.returncode != 0:
            _binary._judge(sampler.returncode, errors)
        out.seek(0)
        samples = [_sample(line) for line in out.read().decode("ascii").splitlines()]
    for _, _, below in (last,):
        below[:] = [(pid, bytes_) for pid, bytes_ in below if pid != sampler.pid]
    samples.append(last)
    after = _memory.highest()
    raised = before is not None and after is not None and after > before
    return look.answer(samples, after if raised else None), returned


def _call_of(proc):
    if callable(proc):
        return proc, (), {}
    if not 1 <= len(proc) <= 3 or not callable(proc[0]):
        raise ValueError("a function is wanted, or (function, arguments, keyword arguments)")
    return proc[0], proc[1] if len(proc) > 1 else (), proc[2] if len(proc) > 2 else {}


def _start(look, out):
    words = [_binary.path(), "sample", str(os.getpid()), "--interval", repr(look.interval)]
    if look.sums or look.apart:
        words.append("--children")
    sampler = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE)
    # From the first sample on the function is watched.
    while os.fstat(out.fileno()).st_size == 0 and sampler.poll() is None:
        time.sleep(0.0005)
    return sampler


def _sample(line):
    words = line.split()
    below = [tuple(int(n) for n in word.split(":")) for word in words[2:]]
    return float(words[0]), int(words[1]), below
