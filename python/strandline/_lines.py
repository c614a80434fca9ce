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
    isn't known. With ``text=True``: as text. Under `strandline run` the report has them at the end, too.
    """
    if _agent.present() is None:
        return "" if text else []
    with Counted() as counted:
        return counted.said() if text else json.loads(counted.said("--json"))["functions"]


# More source lines than the agent can tell apart (`MAX_SITES` in crates/strandline-capture/src/layout.rs).
_ALL = "1000000000"


class Counted(object):
    """What the agent has counted until now, in a temporary file: a context manager that closes it.

    Making one allocates next to nothing: what it says can be worked out later.
    """

    def __init__(self):
        import tempfile

        self.file = tempfile.TemporaryFile()
        if not _agent.load().native_write(self.file.fileno()):
            self.file.close()
            raise Error(
                "what was counted can't be had from inside: under `strandline run --stacks` the profile has it; else is "
                "the disk of temporary files full?"
            )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def said(self, *options):
        """What the binary writes about it."""
        name = "/proc/self/fd/%d" % self.file.fileno()
        words = ["tables", name, "--pid", str(os.getpid())] + list(options)
        return _binary.output(*words, pass_fds=(self.file.fileno(),)).decode("utf-8")

    def in_use_by_line(self):
        """{(function, file, line): bytes}: of what is in use, who asked for it: the innermost Python frame, None where
        none ran."""
        (process,) = json.loads(self.said("--json", "--top", _ALL))["processes"]
        if process["top_in_use"] is None:
            raise Error("the lines that allocate can't be told in this interpreter")
        held = {}
        for row in process["top_in_use"]:
            place = row["function"], row["file"], row["line"]
            held[place] = held.get(place, 0) + row["in_use_bytes"]
        return held
