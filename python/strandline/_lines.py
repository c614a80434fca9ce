"""Line tables from inside a program."""

import json
import os

from . import _agent, _binary
from ._binary import Error

_told = False
# Process id of the process whose functions were decorated, and of the one that reports at its end.
_process = None
_reports = None


def profile(func=None, *args, **kwargs):
    """Show this function's lines in strandline's table. Returns the function itself.

    Works on what `strandline run` takes under ``@profile``: functions, methods, properties, classes. Under
    `strandline run` the report has the table; elsewhere it goes to stderr when the process ends, and
    `tables()` has it at any time.
    """
    global _reports
    if func is None:
        return profile
    decorated = decorate(func)
    if _process is not None and _reports is None:
        import atexit

        _reports = _process
        atexit.register(_at_exit)
    return decorated


def decorate(func):
    """`profile`, of which nothing is said at the end."""
    decorator = _decorator()
    return func if decorator is None else decorator(func)


def _decorator():
    global _told, _process
    try:
        decorator, reason = _agent.profile(), "its line events don't work in this interpreter"
    except Error as e:
        decorator, reason = None, e
    if decorator is None:
        if not _told:
            import warnings

            _told = True
            warnings.warn("strandline shows no lines: %s" % reason, RuntimeWarning, stacklevel=4)
        return None
    if _process is None and _agent.preloaded() is None:
        _process = os.getpid()
    return decorator


def _at_exit():
    import sys

    # A forked child has its parent's handlers.
    if os.getpid() == _reports and sys.stderr is not None:
        try:
            sys.stderr.write(tables(text=True))
        except Exception as e:
            sys.stderr.write("strandline: no tables: %s\n" % e)


def tables(text=False):
    """The line tables of this process until now: a list of dicts, one a function.

    They are the `functions` of ``strandline run --json`` (docs/json.md): amounts in bytes, None for what
    isn't known. With ``text=True``: as text.
    """
    if _process is None:
        if _agent.preloaded() is not None:
            raise Error("under `strandline run` the report has the tables, at the program's end")
        return "" if text else []
    import tempfile

    with tempfile.TemporaryFile() as f:
        if not _agent.load().native_write(f.fileno()):
            raise Error("the tables can't be written to a temporary file: is the disk full?")
        words = ["tables", "/proc/self/fd/%d" % f.fileno(), "--pid", str(os.getpid())]
        if not text:
            words.append("--json")
        answer = _binary.output(*words, pass_fds=(f.fileno(),)).decode("utf-8")
    return answer if text else json.loads(answer)["functions"]
