"""Measuring a piece of a program from inside."""

from . import _agent


class Window(object):
    """What is allocated while it is open: a context manager.

    Bytes asked for through Python's allocators, malloc and mmap, by all threads of the process. One is
    open at a time: opening another begins the peak anew.

    ``peak``: the most that was in use above the beginning; ``in_use``: what is in use above the beginning
    now, or at the end. Both are ints.
    """

    def __init__(self):
        self._native = _agent.load()
        self._start = 0
        self._end = None

    def __enter__(self):
        self._native.native_usage(2)
        self._start = self._native.native_usage(0)
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """The end: the figures stay what they are now."""
        in_use = self.in_use
        self._end = (self.peak, in_use)

    @property
    def peak(self):
        """Bytes."""
        if self._end is not None:
            return self._end[0]
        return max(self._native.native_usage(1) - self._start, 0)

    @property
    def in_use(self):
        """Bytes; negative if more was given back that had been counted before than was asked for."""
        if self._end is not None:
            return self._end[1]
        return self._native.native_usage(0) - self._start
