"""The magics in IPython and in a notebook that nbclient runs, unmodified."""
import io
import re
from contextlib import redirect_stdout

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient


@pytest.fixture
def shell():
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "memory_profiler")
    yield shell
    shell.reset()


def said(shell, cell):
    out = io.StringIO()
    with redirect_stdout(out):
        result = shell.run_cell(cell)
    result.raise_error()
    return out.getvalue(), result.result


def test_memit(shell):
    text, _ = said(shell, "%memit x = b'x' * (200 << 20)")
    peak, increment = re.match(r"peak memory: (\S+) MiB, increment: (\S+) MiB\n$", text).groups()
    assert float(increment) > 180 and float(peak) > float(increment)
    assert len(shell.user_ns["x"]) == 200 << 20
    text, _ = said(shell, "result = %memit -o -q -r 3 -i 0.01 -t 60 -c pass")
    assert text == ""
    result = shell.user_ns["result"]
    assert (len(result.mem_usage), result.repeat, result.timeout, result.interval, result.include_children) == (
        3,
        3,
        60.0,
        0.01,
        True,
    )
    text, _ = said(shell, "%%memit n = 100 << 20\ny = b'x' * n\n")
    assert float(text.split()[5]) > 90


def test_mprun_of_a_function_in_a_cell(shell):
    said(shell, "def f(n):\n    a = b'x' * n\n    return len(a)\n")
    text, _ = said(shell, "%mprun -f f f(50 << 20)")
    assert re.search(r" 2 +\S+ MiB +5[01]\.\d MiB +1       a = b'x' \* n", text)
    text, result = said(shell, "%mprun -r -f f -T out.txt f(1)")
    assert type(result).__name__ == "LineProfiler" and "out.txt" in text
    assert "return len(a)" in open("out.txt").read()
    text, _ = said(shell, "%mprun -b -f f f(1)")
    assert re.search(r" 1 +\S+ MiB +-?0\.\d MiB +1   def f", text)
    text, _ = said(shell, "%%mprun -f f\nb = f(3)\nb += f(4)\n")
    assert "return len(a)" in text and shell.user_ns["b"] == 7


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_mprun_of_a_file(shell, monkeypatch):
    """As the Python Data Science Handbook has it."""
    monkeypatch.syspath_prepend(".")
    said(shell, "%%file mprun_demo.py\ndef sum_of_lists(N):\n    total = 0\n    for i in range(5):\n"
                "        L = [j ^ (j >> i) for j in range(N)]\n        total += sum(L)\n        del L\n    return total\n")
    said(shell, "from mprun_demo import sum_of_lists")
    text, _ = said(shell, "%mprun -f sum_of_lists sum_of_lists(100000)")
    assert "mprun_demo.py" in text and "total += sum(L)" in text


def test_an_unknown_function_is_a_usage_error(shell):
    from IPython.core.error import UsageError

    with pytest.raises(UsageError, match="nosuch"):
        shell.run_line_magic("mprun", "-f nosuch 1")


def test_in_a_notebook():
    cells = [
        "%load_ext memory_profiler",
        "def f():\n    a = b'x' * (30 << 20)\n    return len(a)",
        "%memit f()",
        # The table goes to the pager, which a notebook's file doesn't hold.
        "%mprun -T table.txt -f f f()",
        "print(open('table.txt').read())",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(book, timeout=120, kernel_name="python3").execute()
    assert book.cells[2].outputs[0]["text"].startswith("peak memory: ")
    shown = str(book.cells[4].outputs)
    assert "Line #" in shown and "return len(a)" in shown
