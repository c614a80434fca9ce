"""Clients that measure calls: joblib's own tests, pytest-monitor and vresutils, unmodified."""
import os
import sqlite3
import subprocess
import sys
import time


def run(directory, *words, **environ):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"] + list(words),
        cwd=str(directory),
        env=dict(os.environ, **environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_joblibs_memory_tests(tmp_path):
    words = "--pyargs", "joblib.test.test_numpy_pickle", "-k", "test_memory_usage", "-p", "no:monitor"
    # Where there is no memory_profiler both are skipped.
    assert "2 passed" in run(tmp_path, *words)


def test_pytest_monitor(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import time\ndef test_big():\n    x = b'x' * (80 << 20)\n    time.sleep(0.3)\n    assert len(x) == 80 << 20\n"
    )
    run(tmp_path, "test_it.py")
    with sqlite3.connect(str(tmp_path / ".pymon")) as base:
        ((item, used),) = base.execute("select ITEM, MEM_USAGE from TEST_METRICS").fetchall()
    assert item == "test_big" and 75 < used < 100


def test_a_timer_of_their_own(tmp_path):
    from vresutils.benchmark import memory_logger

    log = tmp_path / "memory.log"
    with memory_logger(filename=str(log), interval=0.02) as found:
        x = b"x" * (100 << 20)
        time.sleep(0.3)
    highest, when = found.mem_usage
    assert len(x) == 100 << 20 and highest > 100 and abs(when - time.time()) < 60
    assert found.n_measurements > 4
    lines = log.read_text().splitlines()
    assert len(lines) == found.n_measurements
    assert max(float(line.split()[1]) for line in lines) == round(highest, 6)
