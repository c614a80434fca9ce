"""strandline, a memory profiler: what every line allocates, holds and strands.

Importing this package changes nothing. It works in a process that was started under ``strandline run``,
where the agent counts from the first allocation on, and in any other: then what needs the agent loads
it, and allocations from before aren't known.
"""

from ._binary import Error
from ._looks import census, explain, snapshot, trim
from ._lines import profile, tables
from ._sampling import memory_usage
from ._window import Window

__version__ = "0.1.0"
__all__ = ["Error", "Window", "census", "explain", "mark", "memory_usage", "profile", "snapshot", "tables", "trim"]


def mark():
    """Under ``strandline remedies``: measure here. Elsewhere nothing happens."""
    from . import _agent

    native = _agent.preloaded()
    if native is not None and hasattr(native, "mark"):
        native.mark()


def load_ipython_extension(ipython):
    """``%load_ext strandline``"""
    from . import ipython as magics

    magics.load(ipython)
