"""memory_profiler's surface, on strandline's own code: memory of Python programs line by line and over time.

docs/memory-profiler.md says what differs from memory_profiler 0.61.
"""
import sys

from ._codemap import CodeMap
from ._memory import choose_backend
from ._profiler import LineProfiler
from ._run import exec_with_profiler, run_module_with_profiler
from ._steps import wrap as _wrap
from ._table import LogFile, show_results
from ._timestamps import TimeStamper
from ._usage import memory_usage

# The version of memory_profiler whose surface this is: what clients compare.
__version__ = "0.61.0"

__all__ = [
    "CodeMap",
    "LineProfiler",
    "LogFile",
    "TimeStamper",
    "choose_backend",
    "load_ipython_extension",
    "memory_usage",
    "profile",
    "show_results",
]


def profile(func=None, stream=None, precision=1, backend="psutil", baseline=None):
    """Measure a function line by line, and write its table after every call, to stdout if there is no stream.

    Usable bare and with arguments, on functions of all kinds, methods and classes, above and below other decorators.
    With `baseline=False` the increment of the first line is its own, and not the whole memory before the call.
    """
    if func is None:
        return lambda f: profile(f, stream, precision, backend, baseline)
    backend = choose_backend(backend)
    if backend == "tracemalloc":
        from ._memory import start_tracemalloc

        start_tracemalloc()

    def decorate(thing):
        return profile(thing, stream, precision, backend, baseline)

    if isinstance(func, type):
        for name, value in list(vars(func).items()):
            if isinstance(value, (type(decorate), classmethod, staticmethod, property)):
                setattr(func, name, decorate(value))
        return func
    if isinstance(func, (classmethod, staticmethod)):
        return type(func)(decorate(func.__func__))
    if isinstance(func, property):
        return property(*[m and decorate(m) for m in (func.fget, func.fset, func.fdel)], doc=func.__doc__)

    def begin():
        prof = LineProfiler(backend=backend, baseline=baseline)
        prof.add_function(func)
        return prof, lambda: show_results(prof, stream=stream, precision=precision)

    return _wrap(func, begin)


def load_ipython_extension(ip):
    """What `%load_ext memory_profiler` calls."""
    from ._magics import MemoryProfilerMagics

    MemoryProfilerMagics.register_magics(ip)


# Loaded when they are asked for: these need IPython or multiprocessing, which a program that is measured seldom has
# imported. The last two have an underscore in memory_profiler, and are imported by its clients all the same.
_LATER = {
    "MemoryProfilerMagics": ("_magics", "MemoryProfilerMagics"),
    "MemitResult": ("_magics", "MemitResult"),
    "MemTimer": ("_timer", "MemTimer"),
    "_get_memory": ("_timer", "get_memory"),
    "_get_child_memory": ("_timer", "get_child_memory"),
}


def __getattr__(name):
    if name in _LATER:
        from importlib import import_module

        module, inside = _LATER[name]
        return getattr(import_module("." + module, __name__), inside)
    raise AttributeError("module 'memory_profiler' has no attribute %r" % name)


if sys.version_info < (3, 7):
    # No module-level __getattr__ before.
    del __getattr__
    from ._timer import MemTimer  # noqa: F401
    from ._timer import get_child_memory as _get_child_memory  # noqa: F401
    from ._timer import get_memory as _get_memory  # noqa: F401

    if "IPython" in sys.modules:
        from ._magics import MemitResult, MemoryProfilerMagics  # noqa: F401
