"""MemTimer and the functions below it, as clients use them: with pipes, subclassed, under every start method."""
import multiprocessing
import os
import subprocess
import sys
import time

import memory_profiler
import pytest
from memory_profiler import MemTimer, choose_backend

SIZE = 60 << 20


def watch(timer, pipe, f):
    """What a client does around a function: (samples, their number)."""
    timer.start()
    assert pipe.recv() == 0
    f()
    pipe.send(0)
    answer = pipe.recv(), pipe.recv()
    timer.join(60)
    assert timer.exitcode == 0
    return answer


def big():
    x = b"x" * SIZE
    time.sleep(0.2)
    return len(x)


def test_samples():
    ours, theirs = multiprocessing.Pipe()
    # As memory_usage() of the original has it.
    timer = MemTimer(os.getpid(), 0.01, theirs, "psutil", timestamps=False, max_usage=False, include_children=False)
    assert isinstance(timer, multiprocessing.Process) and len(timer.mem_usage) == 1
    samples, count = watch(timer, ours, big)
    assert len(samples) == count > 4
    assert max(samples) - samples[0] > 50


def test_the_highest_with_its_time():
    ours, theirs = multiprocessing.Pipe()
    timer = MemTimer(os.getpid(), 0.01, theirs, choose_backend(), True, timestamps=True, name="watch")
    assert timer.name == "watch"
    before = memory_profiler.memory_usage()[0]
    began = time.time()
    (((highest, when),), count) = watch(timer, ours, big)
    assert count > 4 and highest - before > 50 and began <= when <= time.time()


def test_the_timer_is_no_child_of_whom_it_watches():
    ours, theirs = multiprocessing.Pipe()
    timer = MemTimer(os.getpid(), 0.01, theirs, "psutil", include_children=True)
    samples, _ = watch(timer, ours, lambda: time.sleep(0.1))
    assert max(samples) - memory_profiler.memory_usage()[0] < 5


PROGRAM = """\
import multiprocessing, os, sys, time
from memory_profiler import MemTimer, _get_memory

class Mine(MemTimer):
    def run(self):
        self.n_measurements = 100
        super().run()

def main():
    ours, theirs = multiprocessing.Pipe()
    timer = Mine(os.getpid(), 0.01, theirs, "psutil")
    timer.start()
    ours.recv()
    time.sleep(0.1)
    ours.send(0)
    samples, count = ours.recv(), ours.recv()
    timer.join()
    now = _get_memory(-1, "psutil")
    print(timer.exitcode, count - len(samples), abs(samples[-1] - now) < 5)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    main()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_subclass_under_every_start_method(python, method):
    (python.here / "p.py").write_text(PROGRAM)
    # The sample of the constructor isn't counted a second time.
    assert python("p.py", method).stdout == "0 99 True\n"


def test_memory_of_others():
    get, children = memory_profiler._get_memory, memory_profiler._get_child_memory
    child = subprocess.Popen([sys.executable, "-c", "x = b'x' * (%d); print(1, flush=True); input()" % SIZE],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        memory, when = get(child.pid, "psutil", timestamps=True)
        assert memory > 60 and abs(when - time.time()) < 60
        assert get(os.getpid(), "psutil", include_children=True) - get(-1, "posix") > 59
        ((pid, memory),) = [found for found in children(-1) if found[0] == child.pid]
        assert memory > 60
        assert dict(children(os.getpid(), "memory_full_info", "uss"))[child.pid] > 60
    finally:
        child.communicate(b"\n")


def test_importing_the_module_imports_neither():
    code = "import sys, memory_profiler; print('multiprocessing' in sys.modules, 'IPython' in sys.modules)"
    if sys.version_info >= (3, 7):
        assert subprocess.check_output([sys.executable, "-c", code], universal_newlines=True) == "False False\n"
