"""Tables of processes that multiprocessing starts (#148: under -m a decorated function could not even be pickled)."""
import os
import re

import pytest

METHODS = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
HEADING = re.compile(r"^Processes started by multiprocessing: (\d+), .*\n\n", re.M)

PROGRAM = """\
import multiprocessing, sys
@profile
def work(n):
    x = b"x" * (n << 20)
    return len(x) >> 20
@profile
def main(context):
    with context.Pool(2) as pool:
        print("got", pool.map(work, [10, 20, 30]))
    # Nobody waits for it here.
    context.Process(target=work, args=(40,)).start()
if __name__ == "__main__":
    main(multiprocessing.get_context(sys.argv[1]))
    sys.exit(5)
"""


def both(text, rows):
    """The rows of the program's process, those of its children, and how many these were."""
    own, count, children = HEADING.split(text)
    return rows(own), rows(children), int(count)


@METHODS
def test_a_pool_that_is_killed_and_a_process_that_is_left(python, rows, method, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (python.here / "p.py").write_text(PROGRAM)
    out = python("-m", "memory_profiler", "p.py", method, code=5).stdout
    assert out.startswith("got [10, 20, 30]\n")
    own, children, count = both(out, rows)
    # One worker may have done all the work of the pool.
    assert count in (2, 3)
    assert "return len(x) >> 20" not in own and own["context.Process(target=work, args=(40,)).start()"][2] == 1
    assert list(children) == ["@profile", 'x = b"x" * (n << 20)', "return len(x) >> 20"]
    memory, increment, occurrences = children['x = b"x" * (n << 20)']
    assert occurrences == 4 and 99 < increment < 103
    baseline = children["@profile"]
    # The largest of several processes, of which another may have had the 40 MiB.
    assert abs(baseline[0] - baseline[1]) < 1 and 35 < memory - baseline[0] < 43
    assert [name for name in os.listdir(str(tmp_path)) if name.startswith("memory_profiler-")] == []


def test_children_without_the_baseline_in_a_file(python, rows):
    (python.here / "p.py").write_text(PROGRAM)
    out = python("-m", "memory_profiler", "--no-baseline", "-o", "out.txt", "p.py", "fork", code=5).stdout
    assert out == "got [10, 20, 30]\n"
    own, children, _ = both((python.here / "out.txt").read_text(), rows)
    assert abs(own["@profile"][1]) < 1 and abs(children["@profile"][1]) < 1


def test_an_executor_and_children_of_children(script, rows):
    text = (
        "import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor\n"
        "@profile\ndef inner():\n    return bytearray(10 << 20)\n"
        "@profile\ndef outer(n):\n    child = multiprocessing.Process(target=inner)\n    child.start()\n    child.join()\n"
        "    return n\n"
        "if __name__ == '__main__':\n    pool = ProcessPoolExecutor(2)\n    print('got', list(pool.map(outer, [1, 2])))\n"
        "    outer(3)\n"
    )
    out = script(text).stdout
    own, children, count = both(out, rows)
    assert out.startswith("got [1, 2]\n") and count in (4, 5)
    assert own["return n"][2] == 1 and children["return n"][2] == 2
    assert children["return bytearray(10 << 20)"][2] == 3 and children["return bytearray(10 << 20)"][1] > 29


@METHODS
def test_a_program_that_imports_the_decorator(script, method):
    """Tables after every call, of every process."""
    text = (
        "import multiprocessing\nfrom memory_profiler import profile\n@profile\ndef f(n):\n    return n + 1\n"
        "if __name__ == '__main__':\n    with multiprocessing.get_context(%r).Pool(1) as p:\n"
        "        print('got', p.map(f, [1, 2]), f(5))\n"
    ) % method
    out = script(text).stdout
    assert "got [2, 3] 6" in out and out.count("Filename: ") == 3 and not HEADING.search(out)


def test_a_child_that_can_not_write(script, monkeypatch):
    """It loses its tables, and nothing else."""
    monkeypatch.setenv("TMPDIR", "/nowhere/at/all")
    text = (
        "import multiprocessing\n@profile\ndef f(n):\n    return n + 1\n"
        "if __name__ == '__main__':\n    with multiprocessing.get_context('fork').Pool(1) as p:\n"
        "        print('got', p.map(f, [1]))\n"
    )
    done = script(text)
    assert (done.stdout, done.stderr) == ("got [2]\n", "")
