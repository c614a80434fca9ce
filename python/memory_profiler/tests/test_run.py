"""python -m memory_profiler, tables as text, LogFile."""
import io
import logging
import re

import memory_profiler
import pytest
from memory_profiler import LineProfiler, LogFile, show_results

PROGRAM = """\
import sys
@profile
def f(n):
    x = b"x" * (20 << 20)
    for i in range(n):
        y = i
    if n > 1000:
        pass
    return len(x)
f(3)
f(2)
print(sys.argv[1:], __name__, __file__ == sys.argv[0], sys.modules["__main__"].f is f)
"""

TABLE = """\
Filename: {0}

Line #    Mem usage    Increment  Occurrences   Line Contents
=============================================================
     2          MEM          INC           2   @profile
     3                                         def f(n):
     4          MEM          INC           2       x = b"x" * (20 << 20)
     5          MEM          INC           7       for i in range(n):
     6          MEM          INC           5           y = i
     7          MEM          INC           2       if n > 1000:
     8                                                 pass
     9          MEM          INC           2       return len(x)


"""


def test_the_table(script):
    out = script(PROGRAM + "sys.exit(3)\n", code=3).stdout
    first, _, table = out.partition("\n")
    assert first == "[] __main__ True True"
    path = table.splitlines()[0].split(": ")[1]
    amounts = re.compile(r" +-?\d+\.\d{3} MiB +-?\d+\.\d{3} MiB")
    lines = [amounts.sub(lambda m: "          MEM          INC" if len(m.group()) == 26 else m.group(), x) for x in table.split("\n")]
    assert "\n".join(lines) == TABLE.format(path)


def test_arguments_are_the_programs(python):
    (python.here / "p.py").write_text("import sys, os; print(sys.argv, sys.path[0] == os.getcwd())")
    assert python("-m", "memory_profiler", "p.py", "-a", "--version", "b").stdout == "['p.py', '-a', '--version', 'b'] True\n"


def test_a_module(python, rows):
    (python.here / "mod.py").write_text(PROGRAM)
    out = python("-m", "memory_profiler", "mod", "x").stdout
    assert out.startswith("['x'] __main__")
    assert rows(out)["return len(x)"][2] == 2


@pytest.mark.parametrize("digits", [1, 6])
def test_precision(script, digits):
    out = script(PROGRAM, "--precision", str(digits)).stdout
    amount = out.split("=\n")[1].split()[1]
    assert len(amount.split(".")[1]) == digits


def test_output_is_appended_to_a_file(script, python):
    assert "Filename" not in script(PROGRAM, "-o", "out.txt").stdout
    script(PROGRAM, "-o", "out.txt")
    assert (python.here / "out.txt").read_text().count("Filename: ") == 2


def test_results_after_an_exception_and_the_exit_code(script, rows):
    done = script("@profile\ndef f():\n    return 1\nf()\nraise KeyError('mine')\n", code=1)
    assert "KeyError: 'mine'" in done.stderr
    assert rows(done.stdout)["return 1"][2] == 1


def test_timestamps(script):
    out = script(PROGRAM, "--timestamp").stdout.splitlines()[1:]
    assert [line.split()[:2] for line in out] == [["FUNC", "__main__.f"]] * 2
    assert all(len(line.split()) == 7 for line in out)


def test_nothing_to_run_and_the_version(python):
    assert python("-m", "memory_profiler", code=1).stdout == "A program to run must be provided. Use -h for help\n"
    assert python("-m", "memory_profiler", "--version").stdout == "0.61.0\n"
    assert memory_profiler.__version__ == "0.61.0"
    assert "nosuch.py" in python("-m", "memory_profiler", "nosuch.py", code=1).stderr


def test_profile_with_arguments_and_as_a_context(script, rows):
    out = script(
        "@profile(precision=4)\ndef f():\n    return 1\nf()\n"
        "def g():\n    return 2\nprofile.add_function(g)\nwith profile:\n    g()\n"
    ).stdout
    assert {"return 1", "return 2"} <= set(rows(out))


@pytest.mark.parametrize("backend", ["posix", "psutil_pss", "psutil_uss", "exact", "tracemalloc"])
def test_backends(script, rows, backend):
    found = rows(script(PROGRAM, "--backend", backend).stdout)
    assert found['x = b"x" * (20 << 20)'][1] > 35


def test_tracemalloc_sees_single_bytes(script, rows):
    out = script(
        "@profile\ndef f(n):\n    a = bytearray(n)\n    del a\nf(100)\nf(100000)\n", "--backend", "tracemalloc", "--precision", "6"
    ).stdout
    found = rows(out)
    assert abs(found["a = bytearray(n)"][1] - 100100 / 2.0 ** 20) < 0.001
    assert abs(found["del a"][1] + 100100 / 2.0 ** 20) < 0.001


def test_children_are_added(script, rows):
    out = script(
        "import subprocess, sys\n@profile\ndef f():\n"
        "    c = subprocess.Popen([sys.executable, '-c', 'x = b\"x\" * (64 << 20); print(1, flush=True); input()'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "    c.stdout.readline()\n    c.stdin.close()\n    c.wait()\nf()\n",
        "--include-children",
    ).stdout
    found = rows(out)
    assert found["c.stdout.readline()"][0] > 75
    assert found["c.wait()"][1] < 3 and found["c.wait()"][0] - found["@profile"][0] < 70


def test_pdb(script):
    done = script(
        "@profile\ndef f():\n    a = b'x' * (100 << 20)\n    b = len(a)\n    return b\nprint('got', f())\n",
        "--pdb-mmem=60",
        input="p len(a)\nc\n",
    )
    assert "exceeded the maximum of 60.00 MiB" in done.stdout
    assert "(Pdb)" in done.stdout and str(100 << 20) in done.stdout and "got %d" % (100 << 20) in done.stdout


def test_without_the_baseline(script, rows):
    found = rows(script(PROGRAM, "--no-baseline").stdout)
    assert abs(found["@profile"][1]) < 1 and found["@profile"][0] > 5
    assert found['x = b"x" * (20 << 20)'][1] > 39


def test_a_log_file(caplog):
    def f():
        return 1

    prof = LineProfiler()
    prof(f)()
    with caplog.at_level(logging.INFO, logger="all"):
        show_results(prof, stream=LogFile("all"))
        LogFile("all").flush()
    assert any("return 1" in r.getMessage() for r in caplog.records)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="some"):
        out = LogFile("some", reportIncrementFlag=True)
        show_results(prof, stream=out)
        out.write("     4   46.629 MiB -152.488 MiB           1       del b\n")
        out.write("     5   46.629 MiB    2.500 MiB           1       a = 1\n")
    said = [r.getMessage() for r in caplog.records]
    assert [s.split()[0] for s in said] == ["Filename:", "Line", str(f.__code__.co_firstlineno), "5"]


def test_unicode_and_streams(tmp_path):
    with io.open(str(tmp_path / "out"), "w", encoding="utf-8") as f:

        @memory_profiler.profile(stream=f)
        def spricht():
            return "ä ی"

        assert spricht() == "ä ی"
    text = io.open(str(tmp_path / "out"), encoding="utf-8").read()
    assert 'return "ä ی"' in text
