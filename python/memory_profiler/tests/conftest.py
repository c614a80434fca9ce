"""What the tests share: the rows of tables, and running this interpreter in an empty directory."""
import os
import re
import subprocess
import sys

import pytest

ROW = re.compile(r"^ *(\d+) +(-?[\d.]+) MiB +(-?[\d.]+) MiB +(\d+)   (.*)$")


def parse(text):
    """The rows of tables as text: {source line without blanks at its ends: (memory, increment, occurrences)}."""
    rows = {}
    for line in text.splitlines():
        match = ROW.match(line)
        if match:
            rows[match.group(5).strip()] = float(match.group(2)), float(match.group(3)), int(match.group(4))
    return rows


@pytest.fixture
def rows():
    return parse


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Runs this interpreter in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*args, **kw):
        code = kw.pop("code", 0)
        done = subprocess.run(
            [sys.executable] + list(args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            timeout=60,
            **kw
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    run.here = tmp_path
    return run


@pytest.fixture
def script(python):
    """Writes a script and runs it under -m memory_profiler; returns what it printed."""

    def run(text, *options, **kw):
        path = python.here / "script.py"
        path.write_text(text)
        return python("-m", "memory_profiler", *(list(options) + [str(path)]), **kw)

    return run


@pytest.fixture(autouse=True)
def no_profile_builtin():
    import builtins

    yield
    builtins.__dict__.pop("profile", None)


def pytest_report_header(config):
    import memory_profiler

    return "memory_profiler from %s" % os.path.dirname(memory_profiler.__file__)
