"""The pytest plugin: runs pytest on files of its own. Wants pytest and pytest-xdist."""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest

from strandline import _binary
from strandline.pytest_plugin import parse_size

TESTS = """
    import pytest

    KEPT = []

    @pytest.mark.limit_stranded("1 MB")
    def test_strands():
        blocks = [bytearray(2000) for _ in range(5000)]
        KEPT.append(bytearray(2000))

    @pytest.mark.limit_stranded("1 MB")
    def test_strands_nothing():
        # Above 32 MiB malloc maps what is asked for, and unmaps it.
        bytearray(40 << 20)

    def test_small():
        assert sum(range(100)) == 4950

    def test_peak():
        x = bytearray(30 << 20)
        del x

    def test_keeps():
        KEPT.append(bytearray(5 << 20))

    @pytest.mark.limit_memory("24 MB")
    def test_within():
        bytearray(20 << 20)

    @pytest.mark.limit_memory("24 MB")
    def test_above():
        bytearray(25 << 20)

    @pytest.mark.limit_leaks("1 MB")
    def test_leaks():
        KEPT.append([bytes(1000) for _ in range(2000)])

    @pytest.mark.limit_leaks("1 MB")
    def test_garbage_is_no_leak():
        cycle = [bytes(1000) for _ in range(2000)]
        cycle.append(cycle)

    @pytest.mark.limit_memory("1 MB")
    def test_fails_by_itself():
        x = bytearray(50 << 20)
        assert len(x) == 5
    """
FAILED = ["test_above", "test_fails_by_itself", "test_leaks", "test_strands"]


class Plugin(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        with open(os.path.join(self.directory.name, "test_it.py"), "w") as f:
            f.write(textwrap.dedent(TESTS))

    def tearDown(self):
        self.directory.cleanup()

    def pytest(self, *arguments, **options):
        words = list(options.get("under", ())) + [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        child = subprocess.Popen(
            words + list(arguments), cwd=self.directory.name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return child.communicate()[0].decode(), child.returncode

    def check(self, out, status):
        self.assertEqual(status, 1, out)
        failed = re.findall(r"^FAILED test_it.py::(\w+)", out, re.M)
        self.assertEqual(sorted(failed), FAILED, out)
        self.assertRegex(out, r"limit_memory: peak of memory in use 25\.00\d MiB, the limit is 24\.000 MiB")
        self.assertIn("limit_leaks: 1 source line asked for more that is still in use after the test than 1.000 MiB", out)
        self.assertRegex(out, r"\n +1\.9\d\d MiB   \S*/test_it\.py:\d+ \((test_leaks|<listcomp>|test_leaks\.<locals>\.<listcomp>)\)\n")
        self.assertRegex(out, r"limit_stranded: stranded by the test \d+\.\d+ MiB, the limit is 1\.000 MiB")
        self.assertIn("assert len(x) == 5", out)

    def test_limits_hold_without_the_option(self):
        out, status = self.pytest()
        self.check(out, status)
        self.assertNotIn("memory of the tests", out)

    def rows(self, out):
        found = re.findall(r"^ *([\d.]+) MiB +([\d.]+) MiB +([\d.]+) MiB +([\d.]+) MiB +test_it.py::(\w+)$", out, re.M)
        return {row[4]: [float(n) for n in row[:4]] for row in found}

    def check_rows(self, out):
        rows = self.rows(out)
        self.assertEqual(len(rows), 10, out)
        peak, _, leaked, _ = rows["test_peak"]
        self.assertAlmostEqual(peak, 30, delta=0.05)
        self.assertAlmostEqual(leaked, 0, delta=0.05)
        self.assertAlmostEqual(rows["test_keeps"][2], 5, delta=0.05)
        self.assertAlmostEqual(rows["test_small"][0], 0, delta=0.1)

    def test_table(self):
        out, status = self.pytest("--strandline")
        self.check(out, status)
        self.check_rows(out)

    def test_table_without_what_is_stranded(self):
        out, status = self.pytest("--strandline-quick")
        self.check(out, status)
        self.assertRegex(out, r"\n +30\.0\d\d MiB +0\.\d+ MiB +0\.\d+ MiB +-   test_it.py::test_peak\n")

    def test_table_under_xdist(self):
        out, status = self.pytest("--strandline", "-n", "2")
        self.check(out, status)
        self.check_rows(out)

    def test_table_under_strandline_run(self):
        out, status = self.pytest("--strandline", under=[_binary.path(), "run", "-o", "/dev/null", "--"])
        self.check(out, status)
        self.check_rows(out)

    def test_top(self):
        out, _ = self.pytest("--strandline", "--strandline-top", "2")
        self.assertEqual(sorted(self.rows(out)), ["test_fails_by_itself", "test_strands_nothing"])
        self.assertIn("8 more", out)

    def write(self, text):
        with open(os.path.join(self.directory.name, "test_it.py"), "w") as f:
            f.write(textwrap.dedent(text))

    def failed(self, out):
        return sorted(re.findall(r"^FAILED test_it.py::(\w+)", out, re.M))

    def test_a_limit_on_leaks_is_on_each_place(self):
        self.write(
            """
            import pytest
            KEPT = []

            def everywhere():
                KEPT.append([bytes(1000) for _ in range(700)])
                KEPT.append([bytes(1000) for _ in range(700)])
                KEPT.append([bytes(1000) for _ in range(700)])

            @pytest.mark.limit_leaks("1 MB")
            def test_here_and_there():
                everywhere()

            @pytest.mark.limit_leaks(location_limit="1 MB", total=True)
            def test_in_all():
                everywhere()

            @pytest.mark.limit_leaks("1 MB")
            def test_one_line_again_and_again():
                for _ in range(3):
                    KEPT.append(bytearray(700000))

            @pytest.mark.limit_leaks("1 MB")
            def test_what_is_given_back_is_no_leak():
                KEPT.append(bytearray(700000))
                KEPT[-1] = None
                KEPT.append(bytearray(700000))

            SEEN = []

            def known(stack):
                SEEN.append(stack.frames)
                return False

            @pytest.mark.limit_leaks("1 MB", filter_fn=known)
            def test_filtered():
                KEPT.append(bytearray(5 << 20))
                KEPT.append(bytearray(10))

            def test_what_the_filter_saw():
                ((frame,),) = SEEN
                assert frame.function == "test_filtered"
                assert (frame.filename, frame.lineno) == (__file__, test_filtered.__code__.co_firstlineno + 2)

            @pytest.mark.limit_leaks("1 MB", filter_fn=lambda stack: stack.nosuch)
            def test_filter_that_fails():
                KEPT.append(bytearray(5 << 20))

            @pytest.mark.limit_leaks("1 MB", filter_fn=lambda stack: stack.frames[0].filename == __file__)
            def test_not_filtered():
                KEPT.append(bytearray(5 << 20))
            """
        )
        out, status = self.pytest()
        failed = ["test_filter_that_fails", "test_in_all", "test_not_filtered", "test_one_line_again_and_again"]
        self.assertEqual((self.failed(out), status), (failed, 1), out)
        self.assertIn("'Stack' object has no attribute 'nosuch'", out)
        self.assertRegex(out, r"limit_leaks: still in use after the test 2\.\d+ MiB, the limit is 1\.000 MiB")
        out, _ = self.pytest(under=[_binary.path(), "run", "-o", "/dev/null", "--"])
        self.assertEqual(self.failed(out), failed, out)

    def test_a_limit_on_one_thread_counts_all_and_says_so(self):
        self.write(
            """
            import pytest, threading

            @pytest.mark.limit_memory("4 MB", current_thread_only=True)
            def test_alone():
                bytearray(3 << 20)

            @pytest.mark.limit_memory("4 MB", current_thread_only=True)
            def test_together():
                thread = threading.Thread(target=bytearray, args=(5 << 20,))
                thread.start()
                thread.join()
            """
        )
        out, _ = self.pytest()
        self.assertEqual(self.failed(out), ["test_together"], out)
        self.assertRegex(out, r"\(current_thread_only: strandline counts all threads; \d run now\)")

    def test_a_marker_that_says_something_else_is_an_error(self):
        for marker in ("limit_memory", "limit_memory('1 MB', '2 MB')", "limit_memory('1 MB', filter_fn=None)"):
            self.write("import pytest\n@pytest.mark.%s\ndef test(): pass\n" % marker)
            out, status = self.pytest()
            self.assertEqual(status, 1)
            self.assertIn("@pytest.mark.limit_memory wants one size, like '24 MB', current_thread_only=False, and", out)

    def test_nothing_is_measured_unasked(self):
        self.write("import sys\ndef test(): assert '_strandline' not in sys.modules\n")
        out, status = self.pytest()
        self.assertEqual(status, 0, out)


class Sizes(unittest.TestCase):
    def test_sizes(self):
        for text, size in [("24 MB", 24 << 20), ("1.5 KiB", 1536), ("7", 7), (100, 100), ("1GB", 1 << 30), ("3 b", 3)]:
            self.assertEqual(parse_size(text), size)
        for text in ["", "MB", "1 XB", "1 MB 2"]:
            with self.assertRaises(ValueError):
                parse_size(text)


if __name__ == "__main__":
    unittest.main()
