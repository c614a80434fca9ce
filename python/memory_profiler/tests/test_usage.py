"""memory_usage(): every way to call it, and what it leaves behind."""
import io
import os
import subprocess
import sys
import time

import pytest
from memory_profiler import choose_backend, memory_usage

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def give(*args, **kw):
    return args, kw


@pytest.fixture
def process():
    made = []

    def start(command=SLEEPER):
        made.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        return made[-1]

    yield start
    for one in made:
        one.kill()
        one.wait()
        one.stdout.close()


def test_this_process():
    found = memory_usage()
    assert len(found) == 1 and 1 < found[0] < 1000
    assert abs(memory_usage(os.getpid())[0] - found[0]) < 5
    assert isinstance(memory_usage(max_usage=True), float)
    ((memory, when),) = memory_usage(timestamps=True)
    assert abs(memory - found[0]) < 5 and abs(when - time.time()) < 60


def test_timeout_gives_the_number_of_samples():
    assert len(memory_usage(timeout=0.5, interval=0.1)) == 5
    assert len(memory_usage(timeout=1, interval=0.3)) == 3


def test_of_a_call():
    found = memory_usage((time.sleep, (0.05,)))
    assert len(found) > 4 and all(isinstance(m, float) for m in found)
    assert memory_usage((give,), retval=True)[1] == ((), {})
    assert memory_usage((give, (1, 2), {"a": 1}), retval=True)[1] == ((1, 2), {"a": 1})
    highest, value = memory_usage((give, (3,)), retval=True, max_usage=True)
    assert isinstance(highest, float) and value == ((3,), {})
    (highest, when), value = memory_usage((give, (3,)), retval=True, max_usage=True, timestamps=True)
    assert highest > 1 and when > 1e9
    assert isinstance(memory_usage((give, (3,)), multiprocess=True, max_usage=True), float)
    with pytest.raises(ValueError):
        memory_usage((give, (), {}, 4))
    with pytest.raises(TypeError):
        memory_usage("1 + 1")


def test_how_often_a_call_is_repeated():
    calls = []
    memory_usage((calls.append, (1,)), max_iterations=1)
    assert len(calls) == 1
    memory_usage((calls.append, (1,)), interval=1e-7)
    assert len(calls) == 2
    memory_usage((calls.append, (1,)), max_iterations=2)
    assert len(calls) == 4


def test_an_exception_comes_through_and_no_helper_stays():
    def fail():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        memory_usage(fail)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_peak_between_two_samples_is_seen():
    def short():
        bytearray(b"x" * (200 << 20))

    # 400 MiB for a moment, with one sample an hour.
    before = memory_usage()[0]
    assert memory_usage(short, max_usage=True, interval=3600, max_iterations=1) > before + 350


def test_samples_are_taken_while_the_gil_is_held():
    import ctypes

    sleep = ctypes.PyDLL(None).usleep
    assert len(memory_usage((sleep, (900000,)), interval=0.01, max_iterations=1)) >= 10


def test_a_popen_is_watched_to_its_end(process):
    short = process([sys.executable, "-c", "import time; time.sleep(0.5)"])
    assert len(memory_usage(short, interval=0.1)) >= 2
    assert short.poll() == 0


def test_children(process):
    parent = process(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "c = subprocess.Popen([sys.executable, '-c', 'x = b\"x\" * (50 << 20); print(1, flush=True); input()'],"
            " stdin=subprocess.PIPE)\nc.wait()",
        ]
    )
    assert parent.stdout.readline() == b"1\n"
    alone = memory_usage(parent.pid)[0]
    assert memory_usage(parent.pid, include_children=True)[0] > alone + 45
    assert memory_usage(parent.pid, include_children=True, max_usage=True) > alone + 45
    ((own, child),) = memory_usage(parent.pid, multiprocess=True)
    assert abs(own - alone) < 5 and child > 50
    (((own, when), child),) = memory_usage(parent.pid, multiprocess=True, timestamps=True)
    assert abs(own - alone) < 5 and child > 50 and when > 1e9
    out = io.StringIO()
    assert memory_usage(parent.pid, multiprocess=True, stream=out) is None
    mem, chld = out.getvalue().splitlines()
    assert mem.startswith("MEM ") and len(mem.split()) == 3
    assert chld.startswith("CHLD ") and len(chld.split()) == 4


def test_streams():
    out = io.StringIO()
    assert memory_usage(stream=out, timeout=0.3, interval=0.1) is None
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert [line[0] for line in lines] == ["MEM"] * 3
    assert len(lines[0][1].split(".")[1]) == 6 and len(lines[0][2].split(".")[1]) == 4
    out = io.StringIO()
    assert memory_usage(give, stream=out) is None
    assert out.getvalue().startswith("MEM ")


def test_no_such_process(process):
    gone = process([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(Exception) as caught:
        memory_usage(gone.pid)
    assert "process" in str(caught.value)
    assert isinstance(caught.value, ProcessLookupError) or type(caught.value).__name__ == "NoSuchProcess"


@pytest.mark.parametrize("backend", ["psutil", "posix", "psutil_pss", "psutil_uss", "exact", "tracemalloc"])
def test_backends(backend):
    assert choose_backend(backend) == backend
    assert memory_usage(give, backend=backend, max_usage=True) > 0
    assert memory_usage(backend=backend, max_usage=True) > 0


def test_backend_that_is_none():
    assert choose_backend() == "psutil"
    with pytest.raises(KeyError):
        memory_usage(backend="nothing")


def test_a_forked_child_measures_itself():
    from memory_profiler._memory import own_reader

    read = own_reader()
    kept = bytearray(b"x" * (100 << 20))
    assert read() > 100 << 20
    pid = os.fork()
    if pid == 0:
        # A child has what it touches, and here it has less: it gives the copy back.
        before = own_reader()()
        del kept
        os._exit(0 if before - own_reader()() > 90 << 20 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(kept) == 100 << 20
