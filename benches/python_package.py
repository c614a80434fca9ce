#!/usr/bin/env python3
"""What the Python package costs: `profile`, `memory_usage()` and `pytest --strandline`, beside their peers in one run.

    benches/python_package.py [--python PYTHON] [--rounds N] [--only TEXT]

PYTHON has the wheel (scripts/build-wheel) and pytest; with memory_profiler (the original) and pytest-memray these are measured
beside it. Each figure is the median, over the rounds, of the ratio or difference of two runs made one after the other, in
changing order; in brackets the lowest and highest. CPU time, that of child processes included.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

# Prints seconds. sys.argv: who profiles, and how often.
FUNCTION = """
import io, sys, time
def work(n):
    s = 0
    for i in range(n):
        s += i
    return s
f, who = work, sys.argv[1]
if who == "strandline":
    from strandline import profile
    f = profile(work)
elif who == "memory_profiler":
    from memory_profiler import LineProfiler
    f = LineProfiler()(work)
calls, n = int(sys.argv[2]), int(sys.argv[3])
f(10)
begin = time.process_time()
for _ in range(calls):
    f(n)
print(time.process_time() - begin)
"""

USAGE = """
import os, sys
def f():
    return sum(range(2000000))
who = sys.argv[1]
if who == "plain":
    measure = f
else:
    memory_usage = __import__(who).memory_usage
    measure = lambda: memory_usage(f, max_iterations=1)
measure()
begin = sum(os.times()[:4])
for _ in range(10):
    measure()
print((sum(os.times()[:4]) - begin) / 10)
"""

SUITE = """
import json, pytest
MARK = {marker}
@MARK
@pytest.mark.parametrize("n", range(40))
def test_objects(n):
    rows = [dict(id=i, name="row %d" % i, values=list(range(10))) for i in range(2000 + n)]
    assert json.loads(json.dumps(rows)) == rows
@MARK
@pytest.mark.parametrize("n", range(40))
def test_small(n):
    assert sorted(range(n)) == list(range(n))
"""
NO_MARKER = "lambda f: f"


def seconds(python, code, *arguments):
    """What the code prints; its tables at the end are no part of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(code)
        file.flush()
        command = [python, file.name] + [str(a) for a in arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    return float(done.stdout)


def suite(python, directory, options, marker):
    """CPU seconds of a whole run of pytest and of what it starts."""
    (directory / "test_it.py").write_text(SUITE.format(marker=marker))
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"] + options
    begin = sum(os.times()[2:4])
    done = subprocess.run(command, cwd=str(directory), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    took = sum(os.times()[2:4]) - begin
    if done.returncode != 0:
        sys.exit(done.stdout.decode())
    return took


def pairs(rounds, first, second):
    """[(seconds of first, seconds of second)], in changing order."""
    found = []
    for number in range(rounds):
        if number % 2:
            b = second()
            found.append((first(), b))
        else:
            a = first()
            found.append((a, second()))
    return found


def show(name, values, unit):
    print("| %-62s | %8.2f %-3s (%.2f to %.2f) |" % (name, statistics.median(values), unit, min(values), max(values)), flush=True)


def has(python, module):
    return subprocess.run([python, "-c", "import " + module], stderr=subprocess.DEVNULL).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only rows with this in their name")
    args = parser.parse_args()
    python = os.path.abspath(args.python)
    original = has(python, "memory_profiler")
    memray = has(python, "pytest_memray")
    print("%s, %d rounds" % (subprocess.check_output([python, "-V"], universal_newlines=True).strip(), args.rounds))

    def row(name, unit, first, second, figure):
        if args.only in name:
            show(name, [figure(a, b) for a, b in pairs(args.rounds, first, second)], unit)

    lines, calls = 200000, 20000
    whos = ["strandline"] + ["memory_profiler"] * original
    for who in whos:
        # The original is slow enough to be measured on a tenth.
        part = 1 if who == "strandline" else 10
        n, m = lines // part, calls // part
        row(
            "a line of a hot loop under profile, added: " + who,
            "us",
            lambda: seconds(python, FUNCTION, who, 1, n),
            lambda: seconds(python, FUNCTION, "plain", 1, n),
            lambda a, b: (a - b) / (2 * n) * 1e6,
        )
        row(
            "a call of an empty function, added: " + who,
            "us",
            lambda: seconds(python, FUNCTION, who, m, 0),
            lambda: seconds(python, FUNCTION, "plain", m, 0),
            lambda a, b: (a - b) / m * 1e6,
        )
    for who in whos:
        row(
            "memory_usage() of a function, added: " + who,
            "ms",
            lambda: seconds(python, USAGE, who),
            lambda: seconds(python, USAGE, "plain"),
            lambda a, b: (a - b) * 1000,
        )

    plain = ["-p", "no:memray"]
    others = [("pytest " + option, plain + [option], NO_MARKER) for option in ("--strandline", "--strandline-quick")]
    marks = [("limit_memory", 'pytest.mark.limit_memory("500 MB")'), ("limit_leaks", 'pytest.mark.limit_leaks("50 MB")')]
    others += [("%s, by strandline" % name, plain, marker) for name, marker in marks]
    if memray:
        ours = ["-p", "no:strandline"]
        others += [("pytest --memray", ours + ["--memray"], NO_MARKER)]
        others += [("%s, by pytest-memray" % name, ours + ["--memray"], marker) for name, marker in marks]
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        for name, options, marker in others:
            row(
                "80 tests, to the same without: " + name,
                "x",
                lambda: suite(python, directory, options, marker),
                lambda: suite(python, directory, ["-p", "no:memray", "-p", "no:strandline"], NO_MARKER),
                lambda a, b: a / b,
            )


if __name__ == "__main__":
    main()
