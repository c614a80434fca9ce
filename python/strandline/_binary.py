"""Finding and starting the `strandline` binary, which the wheel puts where scripts are."""

import os
import subprocess
import sys


class Error(RuntimeError):
    """Something of strandline's own failed; the text says what and what to do."""


def _places():
    import sysconfig

    here = os.path.dirname(os.path.abspath(__file__))
    yield sysconfig.get_path("scripts")
    yield os.path.dirname(sys.executable or "")
    for scheme in ("posix_user", "posix_prefix", "posix_local"):
        if scheme in sysconfig.get_scheme_names():
            yield sysconfig.get_path("scripts", scheme)
    # pip install --target DIR puts it beside the package.
    yield os.path.join(os.path.dirname(here), "bin")
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield place


def path():
    """The binary's path."""
    for place in _places():
        candidate = os.path.join(place or ".", "strandline")
        if place and os.path.isfile(candidate) and os.access(candidate, os.X_OK) and _is_elf(candidate):
            return candidate
    raise Error("the strandline binary is not where scripts are installed, nor on PATH: install strandline again")


def _is_elf(candidate):
    with open(candidate, "rb") as f:
        return f.read(4) == b"\x7fELF"


def output(*arguments, **options):
    """What the binary writes to stdout. `pass_fds`: descriptors that it gets."""
    done = subprocess.Popen(
        [path()] + list(arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=options.get("pass_fds", ()),
    )
    text, errors = done.communicate()
    _judge(done.returncode, errors)
    return text


def _judge(code, errors):
    if code != 0:
        words = errors.decode("utf-8", "replace").strip()
        raise Error(words or "strandline ended with code %d" % code)


# prctl's number for "this process may trace me" (sys/prctl.h).
PR_SET_PTRACER = 0x59616D61


def look_at_us(*arguments):
    """What the binary writes when it looks at this very process, which lets it for as long as it takes."""
    me = str(os.getpid())
    words = [me if word is None else word for word in arguments]
    # The shell waits until the permission is there, and becomes the binary: the process id stays.
    shell = ["/bin/sh", "-c", 'read go && exec "$0" "$@" </dev/null', path()] + words
    child = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    allowed = _restricted()
    try:
        if allowed:
            _prctl(child.pid)
        text, errors = child.communicate(b"go\n")
    finally:
        if allowed:
            _prctl(0)
    _judge(child.returncode, errors)
    return text


def _restricted():
    # 1: only ancestors may trace (Documentation/admin-guide/LSM/Yama.rst).
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as f:
            return f.read().strip() == "1"
    except OSError:
        return False


def _prctl(pid):
    import ctypes

    unused = ctypes.c_ulong(0)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(pid), unused, unused, unused)
