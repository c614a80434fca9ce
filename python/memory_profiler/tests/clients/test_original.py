"""The same program under the original: the same table, but for the amounts of memory.

The original is in a directory of its own, which MEMORY_PROFILER_ORIGINAL names.
"""
import os
import re
import subprocess
import sys

import pytest

ORIGINAL = os.environ["MEMORY_PROFILER_ORIGINAL"]
AMOUNTS = re.compile(r"-?\d+\.(\d+) MiB")

PROGRAM = """\
import sys
@profile
def f(n):
    x = [1] * 1000
    y = 0
    for i in range(n):
        y += i
    while y > 3:
        y -= 1
    def inner():
        z = 5
        return z
    try:
        inner() / 0
    except ZeroDivisionError:
        pass
    if n > 1000:
        never = 1
    with open(__file__) as h:
        h.read()
    return (lambda: 5)()

@profile
def g():
    f(2)
    class A:
        b = 1
    return sorted({1: 2, 3: 4}, key=lambda k: -k)

f(3); f(5); g()
print(sys.argv, __name__)
sys.exit(7)
"""


def table(directory, *options):
    environ = dict(os.environ)
    environ.pop("PYTHONPATH", None)
    if directory:
        environ["PYTHONPATH"] = directory
    done = subprocess.run(
        [sys.executable, "-m", "memory_profiler"] + list(options),
        stdout=subprocess.PIPE,
        universal_newlines=True,
        env=environ,
        timeout=120,
    )
    return done.returncode, AMOUNTS.sub(lambda m: "N" * (4 + len(m.group(1))), re.sub(r" *(?=-?\d+\.\d+ MiB)", "", done.stdout))


@pytest.mark.parametrize("options", [[], ["--precision", "1"], ["--precision", "5"]])
def test_tables(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.py").write_text(PROGRAM)
    args = options + ["p.py", "a", "--b"]
    assert table(None, *args) == table(ORIGINAL, *args)


def test_dat_files_are_read_by_the_original(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.py").write_text("import time\n@profile\ndef f():\n    time.sleep(0.3)\nf()\n")
    assert subprocess.run([sys.executable, "-m", "mprof", "run", "p.py"], timeout=120).returncode == 0

    def peak(**environ):
        return subprocess.check_output(
            [sys.executable, "-m", "mprof", "peak", "0"], universal_newlines=True, env=dict(os.environ, **environ)
        )

    assert peak() == peak(PYTHONPATH=ORIGINAL)
