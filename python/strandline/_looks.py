"""What this process's memory is: all of it by class, why it stays, and giving it back."""

import json

from . import _agent, _binary, _memory


def census(file=None, text=False):
    """Say what every resident byte of this process is, as it is now.

    Returns what ``strandline census --json`` prints, as a dict, and writes it to `file` as well if one is
    given, which must not exist. With ``text=True`` returns what ``strandline census`` prints.
    """
    if text:
        return _binary.look_at_us("census", None).decode("utf-8")
    native = _agent.preloaded()
    if native is not None:
        return native.census(file)
    if file is None:
        answer = _binary.look_at_us("census", None, "--json")
    else:
        with open(file, "xb") as f:
            answer = _binary.look_at_us("census", None, "--json")
            f.write(answer)
    return json.loads(answer.decode("utf-8"))


def explain(text=False):
    """Say why this process's memory stays, and what would bring it back.

    Returns what ``strandline explain --json`` prints, as a dict; with ``text=True`` what it prints without.
    """
    if text:
        return _binary.look_at_us("explain", None).decode("utf-8")
    return json.loads(_binary.look_at_us("explain", None, "--json").decode("utf-8"))


def snapshot():
    """The figures that cost next to nothing, in bytes: a dict.

    ``rss_bytes``; ``in_use_bytes``: asked for by the program and not given back, None as long as the agent
    isn't there; ``since``: what it counts from, "start" (of the program) or "load" (of the agent).
    """
    native = _agent.present()
    since = None if native is None else "start" if native is _agent.preloaded() else "load"
    own = 0 if native is None else native.native_usage(4)
    return {
        "rss_bytes": _memory.resident() - own,
        "in_use_bytes": None if native is None else native.native_usage(0),
        "since": since,
    }


def trim():
    """Give memory that nothing uses back to the operating system, where that is to be had.

    Runs the collector, malloc_trim and the pool trim (CPython 3.10 to 3.13). Returns bytes, as a dict: what each
    remedy changed resident memory by (more is better, 0 if it wasn't run), and resident memory before and after.
    """
    native = _agent.preloaded()
    if native is not None:
        return native.trim()
    import ctypes
    import gc

    remedies = [("collect", gc.collect), ("malloc_trim", lambda: ctypes.CDLL(None).malloc_trim(0))]
    try:
        native = _agent.prepared()
        remedies.append(("pool_trim", lambda: native.native_remedy(_POOL_TRIM)))
    except _binary.Error:
        # Without the agent there is none.
        pass
    before = now = _memory.exactly_resident()
    given = {"rss_before": before, "pool_trim": 0}
    for name, remedy in remedies:
        remedy()
        last, now = now, _memory.exactly_resident()
        given[name] = last - now
    given["rss_after"] = now
    return given


# `REMEDY_POOL_TRIM` (crates/strandline-capture/src/layout.rs).
_POOL_TRIM = 3

# Classes of a census that are resident, in no live block, and kept by an allocator (docs/census.md).
_STRANDED = (
    "python_free_blocks",
    "python_free_pools",
    "python_free_arenas",
    "malloc_thread_cache",
    "malloc_bins",
    "malloc_top",
)


def stranded():
    """Bytes that this process's allocators keep resident and nobody uses."""
    native = _agent.preloaded()
    if native is not None:
        return native.native_usage(3)
    # The agent, if it came later, doesn't know the blocks from before: a census does.
    answer = _binary.look_at_us("census", None, "--json", "--paths", "0")
    classes = json.loads(answer.decode("utf-8"))["classes"]
    return sum(c["bytes"] for c in classes if c["name"] in _STRANDED)
