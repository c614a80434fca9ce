"""The agent's line meter, for the drop-in for memory_profiler: line events in C, and nothing else of the agent's."""

import threading

from . import _agent
from ._agent import Error

_lock = threading.Lock()
_loaded = None

# What `strandline_meter` answers (crates/strandline-agent/src/meter/mod.rs).
_REASONS = {2: "only CPython 3.6 to 3.13 with a GIL is known", 4: "no memory"}


def load():
    """The module of the meter, which is loaded if it isn't there. Raises Error where it can't be had."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _load()
        return _loaded


def _load():
    import ctypes
    import types

    if _agent.preloaded() is not None:
        raise Error("this process runs under strandline, whose own line events come first")
    library = _agent._library(ctypes)
    module = types.ModuleType("_strandline_meter")
    library.strandline_meter.argtypes = [ctypes.py_object]
    status = library.strandline_meter(module)
    if status != 0:
        raise Error("strandline can't tell lines in this process: %s" % _REASONS.get(status, status))
    return module
