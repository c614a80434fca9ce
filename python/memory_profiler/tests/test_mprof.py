"""The command mprof: what it runs, writes, lists, plots and returns."""
import os
import subprocess
import sys
import time

import mprof
import pytest
from memory_profiler._datfile import Profile

PROGRAM = """\
import sys, time
@profile
def f():
    x = b"x" * (50 << 20)
    time.sleep(0.3)
f()
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""
PLAIN = "import time, sys\ntime.sleep(0.3)\nsys.exit(4)\n"

OLD = """\
CMDLINE python a.py
MEM 10.000000 1000.0000
MEM 30.000000 1001.0000
CHLD 77 5.500000 1001.0000
CHLD 77 6.500000 1002.0000
MEM 20.000000 1002.0000
FUNC __main__.f 11.0000 1000.1000 12.0000 1000.2000 0
FUNC pkg.g 12.0000 1000.5000 35.0000 1001.5000 1
MEM 2"""


@pytest.fixture
def call(python):
    def run(*args, **kw):
        return python("-m", "mprof", *args, **kw)

    run.here = python.here
    return run


@pytest.fixture
def profiles(call):
    names = ["mprofile_2026010203040%d.dat" % n for n in range(3)]
    for name in names:
        (call.here / name).write_text(OLD)
    (call.here / "mprofile_other.dat").write_text("mine")
    return names


def written(call):
    (name,) = [f for f in os.listdir(str(call.here)) if f.startswith("mprofile_")]
    return Profile(str(call.here / name))


def test_run_a_script(call):
    (call.here / "p.py").write_text(PROGRAM)
    done = call("run", "p.py", "3", code=3)
    assert done.stdout.splitlines() == [
        "mprof: Sampling memory every 0.1s",
        "running new process",
        "running as a Python program...",
    ]
    found = written(call)
    assert found.command == sys.executable + " p.py 3"
    assert len(found.samples) >= 3 and found.peak() > 50
    assert list(found.functions) == ["__main__.f"]
    assert found.peak_of("__main__.f") > 50
    lines = open(found.filename).read().splitlines()
    assert {line.split()[0] for line in lines} == {"CMDLINE", "MEM", "FUNC"}
    assert all(len(line.split()) == 3 for line in lines if line.startswith("MEM"))


@pytest.mark.parametrize("options, code", [([], 4), (["-E"], 4), (["--no-exit-code"], 0)])
def test_the_exit_code(call, options, code):
    (call.here / "p.py").write_text(PLAIN)
    call("run", *(options + ["p.py"]), code=code)
    assert written(call).samples


def test_a_signal_is_an_exit_code_as_in_a_shell(call):
    call("run", sys.executable, "-c", "import os; os.kill(os.getpid(), 9)", code=137)


def test_run_other_programs(call):
    out = call("run", "-T", "0.05", "-o", "mine.dat", "sleep", "0.5").stdout
    assert "every 0.05s" in out and "as a Python program" not in out
    found = Profile(str(call.here / "mine.dat"))
    assert found.command == "sleep 0.5" and len(found.samples) >= 5
    assert "nosuchprogram" in call("run", "nosuchprogram", code=127).stderr


def test_run_with_an_interpreter_and_a_module(call):
    (call.here / "mod.py").write_text(PROGRAM)
    call("run", "--python", sys.executable, "mod.py", "2", "-o", code=2)
    call("run", "--python", "-o", "m.dat", "mod", "5", code=5)
    assert list(Profile(str(call.here / "m.dat")).functions) == ["__main__.f"]


def test_without_python_features(call):
    (call.here / "p.py").write_text(PLAIN)
    out = call("run", "--nopython", "p.py", code=4).stdout
    assert "as a Python program" not in out


def test_children(call):
    parent = (
        "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', "
        "'import time; x = b\"x\" * (40 << 20); time.sleep(1)']); c.wait()"
    )
    call("run", "-M", "-o", "m.dat", sys.executable, "-c", parent)
    (samples,) = Profile(str(call.here / "m.dat")).children.values()
    assert max(m for _, m in samples) > 40
    call("run", "-C", "-o", "c.dat", sys.executable, "-c", parent)
    assert Profile(str(call.here / "c.dat")).peak() > 45


def test_timeout(call):
    begin = time.monotonic()
    call("run", "-t", "0.5", "sleep", "5")
    assert written(call).samples and time.monotonic() - begin < 60


@pytest.mark.parametrize("verb", [["attach"], ["run", "--attach"]])
def test_attach(call, verb):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        call(*(verb + ["-t", "0.5", str(process.pid)]))
    finally:
        process.kill()
        process.wait()
    found = written(call)
    assert len(found.samples) == 5 and "time.sleep(60)" in found.command
    assert call("attach", "999999999", code=1).stderr.startswith("mprof: ")


def test_attach_by_name(call):
    process = subprocess.Popen([sys.executable, "-c", "import time; 'a name of its own'; time.sleep(60)"])
    try:
        call("attach", "-t", "0.3", "a name of its own")
    finally:
        process.kill()
        process.wait()
    assert len(written(call).samples) == 3


def test_list(call, profiles):
    assert call("list").stdout.splitlines() == [
        "%d %s 03:04:0%d 02/01/2026" % (n, name, n) for n, name in enumerate(profiles)
    ]


def test_rm_and_clean(call, profiles):
    def left():
        return sorted(f for f in os.listdir(str(call.here)))

    assert call("rm", "--dry-run", "0").stdout.splitlines() == ["Files to be removed: ", profiles[0]]
    assert len(left()) == 4
    call("rm", "-1", profiles[0])
    assert left() == [profiles[1], "mprofile_other.dat"]
    assert "Invalid index" in call("rm", "7", code=1).stderr
    assert call("rm", code=1).stdout.startswith("A profile to remove must be provided")
    assert call("clean", "--dry-run").stdout.splitlines() == ["Files to be removed: ", profiles[1]]
    call("clean")
    assert left() == ["mprofile_other.dat"]


def test_peak(call, profiles):
    assert call("peak").stdout == "Using last profile data.\n%s\t30.000 MiB\n  Child 77\t\t\t6.500 MiB\n" % profiles[2]
    assert call("peak", "0", profiles[1]).stdout.count("30.000 MiB") == 2
    assert call("peak", "--func", "pkg.g", "0").stdout == "%s\t35.000 MiB\n" % profiles[0]
    assert "pkg.g" in call("peak", "--func", "nosuch", "0", code=1).stderr


def test_peak_without_profiles(call):
    assert call("peak", code=255).stdout.startswith("No input file found.")


@pytest.mark.parametrize("options", [[], ["-f"], ["-s", "-n"], ["-w", "0,1.5", "-t", "a <title>"]])
def test_plot(call, profiles, options):
    call("plot", "-o", "p.svg", *(options + ["0", "-1"]))
    text = (call.here / "p.svg").read_text()
    import xml.etree.ElementTree

    assert xml.etree.ElementTree.fromstring(text).tag.endswith("svg")


def test_plot_by_own_means(call, profiles, monkeypatch):
    (call.here / "matplotlib.py").write_text("raise ImportError('not here')")
    out = call("plot").stdout
    assert "mprofile_20260102030402.html" in out
    page = (call.here / "mprofile_20260102030402.html").read_text()
    for word in ("python a.py", "memory used (in MiB)", "time (in seconds)", "child 77", "f 0.100s", "g 1.000s"):
        assert word in page
    call("plot", "-f", "-s", "-o", "x.svg")
    assert "slope" in (call.here / "x.svg").read_text()


def test_plot_says_what_is_wrong(call, profiles):
    assert "window" in call("plot", "-w", "x", code=2).stderr
    (call.here / "empty.dat").write_text("CMDLINE a\n")
    assert "no samples" in call("plot", "empty.dat", code=1).stderr


def test_damaged_files_are_read_as_far_as_they_go(tmp_path):
    path = tmp_path / "mprofile_20260102030405.dat"
    path.write_bytes(OLD.encode() + b"\nFUNC x\nCHLD\n\xff\xfe MEM\nMEM a b\nFUNC a b c d e f\n")
    (tmp_path / "mprofile_20260102030405_ts.dat").write_text("FUNC more 1.0 1000.0 2.0 1001.0 0\n")
    found = Profile(str(path))
    assert len(found.samples) == 3 and found.peak() == 30
    assert sorted(found.functions) == ["__main__.f", "more", "pkg.g"]


def test_usage(call):
    for args in ([], ["nosuch"]):
        assert call(*args, code=1).stdout.startswith("Usage: mprof <command> <options> <arguments>")
    assert call("run", code=1).stdout == "A program to run must be provided. Use -h for help\n"
    for verb in ("run", "attach", "list", "rm", "clean", "plot", "peak"):
        assert call(verb, "--help").stdout.startswith("usage: mprof")


def test_function_labels():
    wanted = {"x.z": "z", "x.b": "x.b", "f.a.b": "f.a.b", "g.a.b": "g.a.b", "g.a.c": "a.c", "b.c": "b.c"}
    assert mprof.function_labels(wanted.keys()) == wanted
