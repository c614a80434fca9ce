"""The agent in this process: preloaded by ``strandline run``, or loaded when it is needed first."""

import json
import os
import sys
import threading

from . import _binary
from ._binary import Error

_lock = threading.Lock()
# The module of an agent that counts nothing yet, and of one that does.
_prepared = None
_loaded = None
_profile = None

# What `strandline_attach` answers (crates/strandline-agent/src/attach.rs).
_REASONS = {
    1: "this process runs under strandline, but its module _strandline can't be imported",
    2: "only CPython 3.6 to 3.13 with a GIL is known",
    3: "malloc isn't that of the C library; start the program under `strandline run` instead",
    4: "no memory for its tables",
}


def preloaded():
    """The module of the agent if the process was started with it, else None."""
    try:
        import _strandline
    except ImportError:
        return None
    return None if hasattr(_strandline, "native_begin") else _strandline


def present():
    """The module of the agent if there is one by now, else None."""
    return preloaded() or _loaded


def load():
    """The module of the agent, which is loaded if it isn't there."""
    global _loaded
    native = present()
    if native is None:
        with _lock:
            if _loaded is None:
                _loaded = _attach()
            native = _loaded
    return native


def profile():
    """The agent's decorator `profile`, or None if it can't tell lines."""
    if preloaded() is not None:
        import builtins

        return getattr(builtins, "profile", None)
    load()
    return _profile


def prepared():
    """The module of the agent in a process that was started without it: for what needs no counting, and costs nothing
    from then on."""
    with _lock:
        return _loaded or _prepare()


def _prepare():
    global _prepared
    if _prepared is None:
        import ctypes
        import types

        library = _library(ctypes)
        module = types.ModuleType("_strandline")
        library.strandline_attach.argtypes = [ctypes.py_object]
        status = library.strandline_attach(module)
        if status != 0:
            raise Error("strandline can't count in this process: %s" % _REASONS.get(status, status))
        _prepared = module
    return _prepared


def _attach():
    global _profile
    module = _prepare()
    # Blocks in arenas from before are told from others by where these are.
    seen = json.loads(_binary.look_at_us("census", None, "--json", "--paths", "0").decode("utf-8"))
    for arena in seen["arenas"]:
        module.native_arena(arena["address"], arena["bytes"])
    _profile = module.native_begin()
    sys.modules["_strandline"] = module
    return module


def _library(ctypes):
    import subprocess

    fd = _nameless()
    try:
        made = subprocess.Popen(
            [_binary.path(), "agent"], stdin=subprocess.DEVNULL, stdout=fd, stderr=subprocess.PIPE
        )
        errors = made.communicate()[1]
        _binary._judge(made.returncode, errors)
        try:
            return ctypes.PyDLL("/proc/self/fd/%d" % fd)
        except OSError as e:
            raise Error("strandline's library can't be loaded: %s" % e)
    finally:
        os.close(fd)


def _nameless():
    """A descriptor of a file that has no name, for a library."""
    if hasattr(os, "memfd_create"):
        # MFD_EXEC (Linux 6.3), which older kernels refuse and don't need.
        for flags in (os.MFD_CLOEXEC | 0x10, os.MFD_CLOEXEC):
            try:
                return os.memfd_create("strandline-agent", flags)
            except OSError:
                pass
    import tempfile

    with tempfile.TemporaryFile() as f:
        return os.dup(f.fileno())
