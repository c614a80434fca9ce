"""The magics, in IPython and in a notebook. Wants ipython, ipykernel and nbclient."""

import re
import subprocess
import sys
import unittest

import nbclient
import nbformat
from IPython.testing.globalipapp import start_ipython
from IPython.utils.capture import capture_output
from strandline import _binary


class Magics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shell = start_ipython()
        cls.shell.run_line_magic("load_ext", "strandline")

    def run_cell(self, text):
        with capture_output() as captured:
            outcome = self.shell.run_cell(text)
        self.assertTrue(outcome.success, captured.stdout + captured.stderr)
        return captured.stdout, outcome.result

    def test_memit(self):
        out, _ = self.run_cell("%memit -r 2 -i 0.01 x = b'x' * (100 << 20); del x")
        peak, increment = re.match(r"peak memory: ([\d.]+) MiB, increment: ([\d.]+) MiB$", out.strip()).groups()
        self.assertAlmostEqual(float(increment), 100, delta=12)
        self.assertGreater(float(peak), float(increment))

    def test_memit_returns_its_result_and_keeps_quiet(self):
        out, result = self.run_cell("%memit -o -q -c -t 30 [0] * 1000")
        # The cell's value is shown, nothing else.
        self.assertRegex(out, r"^Out\[\d+\]: <MemitResult : [^\n]*>\n$")
        self.assertEqual((result.repeat, result.timeout, result.interval), (1, 30.0, 0.1))
        self.assertEqual((len(result.mem_usage), result.include_children), (1, True))
        self.assertGreater(result.baseline, 1)

    def test_memit_with_a_setup(self):
        _, result = self.run_cell("%%memit -o n = 1000\nvalue = [n] * n\nassert n == 1000")
        self.assertEqual(self.shell.user_ns["value"], [1000] * 1000)
        self.assertGreater(max(result.mem_usage), 1)

    def test_mprun_takes_functions_of_a_cell(self):
        self.run_cell("def f(n):\n    kept = [bytes(1000) for _ in range(n)]\n    return kept\n")
        for _ in range(2):
            out, _ = self.run_cell("%mprun -f f kept = f(10000)")
            (row,) = [line for line in out.splitlines() if "kept = [bytes" in line]
            self.assertRegex(row, r"9\.9\d\d MiB .* 1  +kept = ")
        _, tables = self.run_cell("%mprun -r -f f f(10)")
        self.assertEqual([t["name"] for t in tables], ["f"])

    def test_mprun_under_strandline_run(self):
        code = (
            "from IPython.testing.globalipapp import start_ipython\n"
            "shell = start_ipython()\n"
            "shell.run_line_magic('load_ext', 'strandline')\n"
            "shell.run_cell('def f(n):\\n    return [bytes(1000) for _ in range(n)]\\n')\n"
            "for _ in range(2):\n    shell.run_cell('%mprun -f f kept = f(10000)').raise_error()\n"
        )
        command = [_binary.path(), "run", "-o", "/dev/null", "--", sys.executable, "-c", code]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate()
        rows = [line for line in out.decode().splitlines() if line.endswith("return [bytes(1000) for _ in range(n)]")]
        self.assertEqual((len(rows), child.returncode), (2, 0), err.decode())
        for row in rows:
            self.assertRegex(row, r"9\.9\d\d MiB .* 1  +return ")

    def test_strand(self):
        out, result = self.run_cell("%%strand\nx = bytearray(50 << 20)\ndel x\nnew = bytearray(10 << 20)\n1 + 1")
        self.assertEqual(result, 2)
        self.assertRegex(out, r"Peak +50\.\d\d\d MiB")
        self.assertRegex(out, r"In use +10\.0\d\d MiB")
        self.assertIn("Stranded", out)

    def test_errors_of_the_code_are_the_cells(self):
        for cell in ("%memit 1 // 0", "%%strand\n1 // 0"):
            with capture_output():
                outcome = self.shell.run_cell(cell)
            self.assertIsInstance(outcome.error_in_exec, ZeroDivisionError)


class Notebook(unittest.TestCase):
    def test_a_notebook(self):
        cells = [
            "%load_ext strandline",
            "def f():\n    return [bytes(1000) for _ in range(10000)]",
            "%memit -i 0.01 f()",
            "%mprun -f f f()",
            "%%strand\nkept = f()\nlen(kept)",
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
        texts = ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]
        self.assertIn("peak memory: ", texts[2])
        self.assertRegex(texts[3], r"9\.9\d\d MiB .*return \[bytes")
        self.assertRegex(texts[4], r"In use +9\.9\d\d MiB")
        values = [o.data["text/plain"] for o in notebook.cells[4].outputs if o.output_type == "execute_result"]
        self.assertEqual(values, ["10000"])


if __name__ == "__main__":
    unittest.main()
