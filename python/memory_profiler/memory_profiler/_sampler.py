"""Samples of this process by the command of the package `strandline`, which is up in a tenth of the time of a Python."""
import os
import subprocess
import tempfile
import time

from . import _memory, _native

# What the command takes at most, seconds.
LONGEST = 86400.0


def sampler():
    """A sampler of resident memory; None if the command can't be had."""
    command = _native.command()
    return None if command is None else Sampler(command)


class Sampler:
    """A process of its own for each start(): no GIL, no copy of this process's memory."""

    def __init__(self, command):
        self.command = command
        self.process = None

    def start(self, interval):
        """Returns when the first sample is there."""
        # Not a pipe: a function may run for so long that one is full.
        self.out = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [self.command, "sample", str(os.getpid()), "--interval", repr(min(float(interval), LONGEST))],
            stdin=subprocess.PIPE,
            stdout=self.out,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"},
            start_new_session=True,  # a Ctrl-C is not for it
        )
        while os.fstat(self.out.fileno()).st_size == 0:
            if self.process.poll() is not None:
                raise RuntimeError("%s sample has ended with code %d" % (self.command, self.process.returncode))
            time.sleep(0.0002)

    def stop(self):
        """(bytes, time) of every sample since start(), and of now."""
        last = _memory.own_reader()(), time.time()
        self._end()
        self.out.seek(0)
        found = []
        for line in self.out.read().decode("ascii").splitlines():
            when, n = line.split()
            found.append((int(n), float(when)))
        self.out.close()
        return [sample for sample in found if sample[1] <= last[1]] + [last]

    def _end(self):
        # The end of its input is its end.
        self.process.stdin.close()
        self.process.wait()
        self.process = None

    def close(self):
        if self.process is not None:
            self._end()
            self.out.close()
